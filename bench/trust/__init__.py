"""What compression broke: an average hides a class that died. Pure: arrays in, figures and verdicts out.

- ``flips``        whose answers changed
- ``paired``       tests and intervals of two models on the same samples, corrections for many tests
- ``slices``       every class, every group of the data, the worst of them
- ``calibration``  whether a confidence still means what it says
- ``values``       tasks that score each sample with a number (PSNR, IoU, ...)
- ``text``         tasks that answer with text: edits by length
- ``certify``      whether there are data enough to say anything
- ``gate``         the checks of one task kind together, at one error rate

A further kind of damage (robustness under corruption, saliency, fairness between groups) is a further file here that gives
figures and ``Check``s; ``gate`` puts its checks into the same correction.

Not for choosing a model: it says no, or that nothing was found, on data that nobody tuned on.
"""
