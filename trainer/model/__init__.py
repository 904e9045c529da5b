"""The network: backbone, ACT head, and where its weights come from."""

from trainer.model.act import MEAN_RGB, ActNet

__all__ = ["MEAN_RGB", "ActNet"]
