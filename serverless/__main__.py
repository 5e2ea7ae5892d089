from serverless.main import main

main()
