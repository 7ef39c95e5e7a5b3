"""Sizes of the miniature's parts: real Wan classes, small numbers.

Cost decides them. On one CPU core a clip (17 frames of 64x64) has to be sampled and decoded in 0.2 s, so the
transformer sees 48 tokens (latents 16x9x8x8 under patches of 3x2x2: few tokens that are long in time) and the
decoder works on 16x16 positions (`patch_size=4` folds 4x4 pixels into channels first). A token stands for 192
numbers, so the transformer is wider than that: five layers of 256 take 11.4 ms a clip and pass on a CPU core,
six of 192 took 9.7 ms.
"""

from collections.abc import Sequence

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

LATENT_CHANNELS = 16
TEXT_WIDTH = 96
MAX_WORDS = 24
"""Longest caption in tokens, end marker included; recipes pass it as `generate.max_sequence_length`."""


def build_vae(
    encoder_width: int = 48,
    decoder_width: int = 32,
    latents_mean: Sequence[float] | None = None,
    latents_std: Sequence[float] | None = None,
) -> AutoencoderKLWan:
    """Video VAE: pixels [B, 3, 1+2k, H, W] in [-1, 1] -> latents [B, 16, 1+k, H/8, W/8].

    A round only ever decodes, so the encoder may be wider than the decoder.
    `latents_mean` and `latents_std` (16 numbers each) belong to the checkpoint: the pipeline undoes them.
    """
    return AutoencoderKLWan(
        base_dim=encoder_width,
        decoder_base_dim=decoder_width,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[True],
        in_channels=48,
        out_channels=48,
        patch_size=4,
        scale_factor_spatial=8,
        scale_factor_temporal=2,
        latents_mean=list(latents_mean or [0.0] * LATENT_CHANNELS),
        latents_std=list(latents_std or [1.0] * LATENT_CHANNELS),
    )


def build_transformer(width: int = 256, layers: int = 5, head_dim: int = 64) -> WanTransformer3DModel:
    """Denoiser: latents [B, 16, F, h, w], timestep [B] in 0..1000, text [B, L, 96] -> velocity."""
    return WanTransformer3DModel(
        patch_size=(3, 2, 2),
        num_attention_heads=width // head_dim,
        attention_head_dim=head_dim,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=128,
        ffn_dim=4 * width,
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> UMT5EncoderModel:
    """Text encoder: tokens [B, L] -> embeddings [B, L, 96]."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=24,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_scheduler(flow_shift: float = 5.0) -> UniPCMultistepScheduler:
    """Wan's own sampler: UniPC on flow-matching sigmas.

    The shift spends more of the few steps at high noise, where places and shapes are decided. Of 480 dev
    samples of the base before its last training (8 steps, guidance 1.5) 72% passed at a shift of 3, 75% at 5
    and 75% at 8.
    """
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=flow_shift,
    )


def assemble(
    transformer: WanTransformer3DModel,
    vae: AutoencoderKLWan,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    flow_shift: float = 5.0,
) -> WanPipeline:
    """The four parts and their sampler as an ordinary `WanPipeline`."""
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=build_scheduler(flow_shift),
        transformer=transformer,
    )
