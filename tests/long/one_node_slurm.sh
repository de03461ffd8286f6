#!/usr/bin/env bash
# A Slurm cluster of this machine alone, for tests: one_node_slurm.sh start|stop FOLDER
#
# Needs root, and Debian's packages slurm-wlm and munge. Everything it writes is below FOLDER, and its daemons
# listen on ports of their own, so that a Slurm that is there already is left alone. After `start`,
# SLURM_CONF=FOLDER/slurm.conf makes sbatch, squeue and so on talk to it.
set -euo pipefail
folder=$(realpath -m "$2") node=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf

running() { [[ $(ps -o stat= -p "$1") =~ ^[^Z] ]]; }

stop() {
    scancel --state=PENDING --user=root && scancel --user=root || true
    for _ in $(seq 60); do
        [ -n "$(squeue --noheader)" ] || break
        sleep 0.5
    done
    for daemon in slurmctld slurmd munged; do
        [ -s "$folder/$daemon.pid" ] || continue
        pid=$(<"$folder/$daemon.pid")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 20); do
            running "$pid" || break
            sleep 0.5
        done
        ! running "$pid" || kill -KILL "$pid"
    done
}

start() {
    mkdir -p "$folder"/{state,spool}
    chmod 755 "$folder"
    dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
    chmod 600 "$folder/munge.key"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
SlurmctldPort=17817
SlurmdPort=17818
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$node NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=$node Default=YES PriorityTier=1 GraceTime=5 State=UP
PartitionName=urgent Nodes=$node PriorityTier=2 PreemptMode=OFF State=UP
CONF
    munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" --num-threads=2 --force
    slurmctld
    slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%t 2>/dev/null | grep -q idle; then return; fi
        sleep 0.5
    done
    sinfo >&2 || true
    tail -n 20 "$folder"/*.log >&2
    stop
    exit 1
}

"$1"
