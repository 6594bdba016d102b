"""The last step: a bundle that an app uses as it is and that carries its own proof.

- ``spec``         the nouns of ship.json, schema 1, and their JSON Schema
- ``archive``      the folder as one deterministic file, and its safe opening
- ``postprocess``  from a model's outputs to what a user sees; the reference
- ``golden``       images with what every stage must make of them
- ``platforms``    packages for Linux, web, Android and iOS, from ``templates``
- ``card``         the model card
- ``write``        all of it into one folder
- ``verify``       all of it replayed

Nothing here decides whether a model may ship: search/ship.py reads the gates, and hands over what was decided.
"""
