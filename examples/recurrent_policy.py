"""A GRU policy by PPO in a T-maze: what is seen at the entrance says where to turn at the end of the corridor."""

import jax
import jax.numpy as jnp
import optax

import rnn_jax

TIME, MAZES, LONGEST, BURN_IN = 32, 64, 10, 8  # steps per window, mazes, longest corridor, steps without a loss


def ppo(y, seen):
    """The loss of one step; `y` holds two logits and a value. Schulman et al. (2017), arXiv:1707.06347."""
    log_p = jax.nn.log_softmax(y[:2])
    ratio = jnp.exp(log_p[seen["action"]] - seen["log_p"])
    gain = jnp.minimum(ratio * seen["advantage"], jnp.clip(ratio, 0.8, 1.2) * seen["advantage"])
    return 0.5 * (y[2] - seen["return"]) ** 2 - gain + 0.01 * jnp.sum(jnp.exp(log_p) * log_p)


def walk(params, world, key):
    """One window of all mazes, a new maze after each end: the world, the batch, the share of right turns."""

    def step(world, keys):
        h, place, cue, length = world
        begins, ends = place == 0, place == length
        x = jnp.stack([begins * cue, 1.0 * ends], -1)  # the cue, 1 or -1, is visible at the entrance only
        y, h = rnn_jax.apply_step(params, h, x, reset=begins)
        action = jax.random.categorical(keys[0], y[:, :2])
        log_p = jnp.take_along_axis(jax.nn.log_softmax(y[:, :2]), action[:, None], -1)[:, 0]
        reward = ends * jnp.where(2 * action - 1 == cue, 1.0, -1.0)
        new = 0, jax.random.rademacher(keys[1], (MAZES,), float), jax.random.randint(keys[2], (MAZES,), 3, LONGEST + 1)
        place, cue, length = (jnp.where(ends, *pair) for pair in zip(new, (place + 1, cue, length), strict=True))
        return (h, place, cue, length), (x, begins, (reward, ends), y[:, 2], {"action": action, "log_p": log_p})

    world, (xs, begins, outcome, values, seen) = jax.lax.scan(step, world, jax.random.split(key, (TIME, 3)))

    def discounted(later, now):
        reward, ends = now
        return (jnp.where(ends, reward, 0.97 * later),) * 2

    _, returns = jax.lax.scan(
        discounted, values[-1], outcome, reverse=True
    )  # the last value for that of the next state
    seen |= {"advantage": returns - values, "return": returns}
    batch = rnn_jax.Batch(xs, jax.tree.map(lambda x: x[BURN_IN:], seen), reset=begins)
    return world, batch, jnp.sum(outcome[0] > 0) / jnp.sum(outcome[1])


def main(num_windows: int = 300) -> float:
    params = rnn_jax.init_params(jax.random.key(0), cell="gru", input_size=2, hidden_size=32, output_size=3)
    method = rnn_jax.BurnIn(rnn_jax.Blocked(), steps=BURN_IN)  # without it the gradient would enter the burn-in too
    grad_fn = rnn_jax.make_grad_fn(method, loss=rnn_jax.pointwise(ppo))
    optimizer = optax.chain(rnn_jax.clip_gradients(max_norm=1.0), optax.adam(3e-3))
    trainer = rnn_jax.make_trainer(grad_fn, optimizer, carry=False)

    def window(carry, key):
        state, world = carry
        end, batch, right = walk(state.params, world, key)
        state = state._replace(h_0=world[0])  # the states before the window
        return (jax.lax.scan(lambda s, _: trainer.step(s, batch), state, length=3)[0], end), right

    h_0, keys = rnn_jax.zero_state(params, MAZES), jax.random.split(jax.random.key(1), num_windows)
    world = h_0, jnp.zeros(MAZES, int), jnp.ones(MAZES), jnp.full(MAZES, LONGEST)
    _, right = jax.jit(lambda carry: jax.lax.scan(window, carry, keys))((trainer.init(params, h_0), world))
    print(f"right turns: {right[:10].mean():.0%} in the first ten windows, {right[-10:].mean():.1%} in the last ten")
    return float(right[-10:].mean())


if __name__ == "__main__":
    main()
