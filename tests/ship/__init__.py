"""What is shipped: the wheel, the sdist and the files to deploy them with."""
