"""The world: a procedural 2-D physics world that knows its own laws.

In: a caption of the catalog (`a red ball falls onto the floor and bounces`) and a random generator.
Out: clips that obey the law the caption names, clips that break exactly one, and a verdict on any clip.

    catalog       words: colours, shapes, templates, captions and their exact inverse        <- open first
    laws          the equations, nothing else
    draft         a scene being put together: random numbers, the clock, the layers so far
    trajectories  a template's free parameters and how its law moves the subjects and props
    scene         one sampled scene, right or broken
    render        scenes -> uint8 frames, and the true optical flow between two frames
    tracking      frames -> what can be seen: one track per subject, the hand, strange blobs
    checks        what a template's caption promises, asked of the tracks
    oracle        judge(frames, caption) -> Verdict: pixels and caption only, never a scene
    prompts       the prompt sets train, dev, heldout and unseen
    corpus        many captioned scenes, and the verdicts on many clips, in processes
    table         how well the oracle judges, by template (`python -m miniature.world.table`)

The stage is a unit square, x to the right, y down, centred in the frame (any other part of a frame is
matte); time runs from 0 (first frame) to 1 (last frame).
"""
