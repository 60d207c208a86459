"""Gradient methods are values."""

import dataclasses
import pickle

import jax
import pytest

import rnn_jax


@pytest.mark.parametrize("method", rnn_jax.GRADIENTS)
def test_methods_are_values(method):
    """Equal, hashable and picklable, they and what they are checked against, and frozen."""
    example = rnn_jax.GRADIENTS[method].example
    again = dataclasses.replace(example)
    assert example == again and hash(example) == hash(again) and example.reference == again.reference
    for value in (example, example.reference):
        assert pickle.loads(pickle.dumps(value)) == value
        assert hash(value) == hash(pickle.loads(pickle.dumps(value)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        example.plan = None
    sharded = rnn_jax.Sharded(example, jax.devices())
    assert sharded == rnn_jax.Sharded(example, tuple(jax.devices())) and hash(sharded)
    with pytest.raises(ValueError, match="must not be `Sharded` itself"):
        rnn_jax.Sharded(sharded, jax.devices())
