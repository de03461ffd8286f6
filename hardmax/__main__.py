from hardmax.commands import main

main()
