"""The miniature: a Wan model small enough for two CPU cores, pretrained by this project on `miniature.world`.

In: scenes and captions of the physics world, a stated share of which break one law.
Out: `weights/wan/`, an ordinary diffusers folder (`WanPipeline`) that `models.families.wan` loads like any
other Wan model. Nothing outside this folder knows that it is small.

    corpus.py        scenes -> captioned clips, some of them impossible
    architecture.py  sizes of the four parts, and the tokenizer of the world's vocabulary
    vae.py           trains `AutoencoderKLWan` to reconstruct clips
    denoiser.py      trains `WanTransformer3DModel` and its UMT5 text encoder by flow matching
    quality.py       measures saved weights with the oracle and writes the card
    pretrain.py      the command: `python -m miniature.train.pretrain --device cuda --out
    miniature/weights/wan`
"""
