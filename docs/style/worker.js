// Search runs in a worker, which browsers refuse to pages opened from a folder: there, a hidden frame stands in for it.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inner = frame.contentWindow;
      this.inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.inner.importScripts = async (...urls) => {
        for (const src of urls) await this.load(src);
      };
      this.ready = this.load(url);
    }
    load(src) {
      const script = Object.assign(this.inner.document.createElement("script"), { src });
      return new Promise((onload) => this.inner.document.body.append(Object.assign(script, { onload })));
    }
    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {}
  };
