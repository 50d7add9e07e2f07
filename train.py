"""The front door: python train.py attention=linformer."""

from xformer.cli import train

if __name__ == "__main__":
    train()
