"`python -m rotnb NAME ...` is `rotnb NAME ...`, and so is `torchrun ... -m -- rotnb NAME ...`"
from .cli.rotnb import main

if __name__=='__main__': main()
