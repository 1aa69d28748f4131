"""How probable are these codes, and draw new ones."""

from transformers import AutoConfig, AutoModel

from vqtok.priors.binding import PriorBinding
from vqtok.priors.likelihood import Prior, code_logits, negative_log_likelihood, training_loss
from vqtok.priors.loading import load_prior
from vqtok.priors.pixelcnn import PixelCNN, PixelCNNConfig
from vqtok.priors.sampling import generate, sample_codes
from vqtok.priors.transformer import transformer_prior

__all__ = [
    "PixelCNN",
    "PixelCNNConfig",
    "Prior",
    "PriorBinding",
    "code_logits",
    "generate",
    "load_prior",
    "negative_log_likelihood",
    "sample_codes",
    "training_loss",
    "transformer_prior",
]

AutoConfig.register(PixelCNNConfig.model_type, PixelCNNConfig, exist_ok=True)
AutoModel.register(PixelCNNConfig, PixelCNN, exist_ok=True)
