"""The miniature's judges: commands that train a small CLIP and RAFT on the physics world, and their weights.

    scenes of data.world  ->  frames + captions   ->  train_clip  ->  weights/clip   (open_clip's local-dir)
                          ->  frames + true flow  ->  train_raft  ->  weights/raft   (config, safetensors)

    python -m rewards.mini.train_clip --device cuda --seconds 75 --out rewards/mini/weights/clip
    python -m rewards.mini.train_raft --device cuda --seconds 75 --out rewards/mini/weights/raft

Each folder holds safetensors in 16 bit, a config, and CARD.md with the command, seed, data and the quality
of those very files. Nothing at run time imports this package: the rewards read the folders as anyone's.

Open first: `train_clip`. `training` is the loop both share, `corpus` the data, `measure_*` the quality.
"""
