"""`python -m ssl_audio`, where the command `ssl-audio` is not installed."""

from ssl_audio.cli.main import main

main()
