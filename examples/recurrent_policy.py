"""A GRU policy by PPO in a T-maze: what is seen at the entrance says where to turn at the end of the corridor."""

import jax
import jax.numpy as jnp
import optax

import rnn_jax

TIME, MAZES, LONGEST, BURN_IN = 32, 64, 10, 8  # steps per window, mazes, longest corridor, steps without a loss
METHODS = {"stopped": rnn_jax.BurnIn(rnn_jax.Blocked(), BURN_IN), "through": rnn_jax.Blocked()}  # at the burn-in


def ppo(y, seen):
    """The loss of one step; `y` holds two logits and a value. Schulman et al. (2017), arXiv:1707.06347."""
    log_p, advantage = jax.nn.log_softmax(y[:2]), seen["return"] - seen["y"][2]
    ratio = jnp.exp(log_p - jax.nn.log_softmax(seen["y"][:2]))[seen["action"]]
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage)
    return 0.5 * (y[2] - seen["return"]) ** 2 - gain + 0.01 * jnp.sum(jnp.exp(log_p) * log_p)


def step(params, world, keys):
    """One step of all mazes, a new maze after each end; `left` counts the steps to the end of the corridor."""
    h, begins, cue, left = world
    ends = left == 0
    x = jnp.stack([begins * cue, 1.0 * ends], -1)  # the cue, 1 or -1, is visible at the entrance only
    y, h = rnn_jax.apply_step(params, h, x, reset=begins)
    action = jax.random.categorical(keys[0], y[:, :2])
    reward = ends * jnp.where(2 * action - 1 == cue, 1.0, -1.0)
    cue = jnp.where(ends, jax.random.rademacher(keys[1], (MAZES,), float), cue)
    left = jnp.where(ends, jax.random.randint(keys[2], (MAZES,), 3, LONGEST + 1), left - 1)
    return (h, ends, cue, left), (x, begins, ends, reward, {"y": y, "action": action})


def discounted(later, now):
    ends, reward = now
    return (jnp.where(ends, reward, 0.97 * later),) * 2


def main(method, num_windows: int = 300):
    params = rnn_jax.init_params(jax.random.key(0), cell="gru", input_size=2, hidden_size=32, output_size=3)
    optimizer = optax.chain(rnn_jax.clip_gradients(max_norm=1.0), optax.adam(3e-3))
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn(method, loss=rnn_jax.pointwise(ppo)), optimizer, carry=False)

    def window(carry, key):
        (state, world), keys = carry, jax.random.split(key, (TIME, 3))
        end, (xs, begins, ends, rewards, seen) = jax.lax.scan(lambda *now: step(state.params, *now), world, keys)
        seen["return"] = jax.lax.scan(discounted, seen["y"][-1, :, 2], (ends, rewards), reverse=True)[1]
        batch = rnn_jax.Batch(xs, jax.tree.map(lambda x: x[BURN_IN:], seen), reset=begins)
        state, _ = jax.lax.scan(lambda s, _: trainer.step(s, batch), state._replace(h_0=world[0]), length=3)
        return (state, end), jnp.sum(rewards > 0) / jnp.sum(ends)

    world = rnn_jax.zero_state(params, MAZES), jnp.ones(MAZES, bool), jnp.ones(MAZES), jnp.full(MAZES, LONGEST)
    keys = jax.random.split(jax.random.key(1), num_windows)
    return jax.lax.scan(window, (trainer.init(params, world[0]), world), keys)[1]


if __name__ == "__main__":
    for name, method in METHODS.items():
        right = main(method)
        print(f"{name}: {right[:10].mean():.0%} right in the first ten windows, {right[-10:].mean():.1%} in the last")
