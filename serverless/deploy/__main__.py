from serverless.deploy.command import deploy

deploy(prog_name="python -m serverless.deploy")
