"""Random numbers without a state: known answers, distributions, and what they depend on."""

import numpy as np
import pytest
import torch
from scipy import stats

from evobench.evograd.counter import Counter, threefry

KNOWN = [
    # rounds, counter, key, result: the known answers of Random123, the authors' library
    (13, (0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
    (13, (0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0xFD36D048, 0x2D17272C)),
    (13, (0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xBA3E4725, 0xF27D669E)),
    (20, (0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    (20, (0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    (20, (0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("rounds", "counter", "key", "result"), KNOWN)
def test_threefry_gives_the_known_answers(rounds, counter, key, result):
    words = torch.from_numpy(np.array([*key, *counter], dtype=np.uint32).view(np.int32)[:, None])
    assert tuple(int(word) & 0xFFFFFFFF for word in threefry(*words, rounds=rounds)) == result


def test_uniforms_and_normals_have_their_distribution():
    """Also over seeds and turns at one place, where a poor mixture would show a lattice."""
    counter = Counter.of(range(40), "cpu")
    turns = [counter._replace(turn=torch.tensor(turn, dtype=torch.int32)) for turn in range(40)]
    for draw, law in (("uniform", stats.uniform), ("normal", stats.norm)):
        numbers = torch.stack([getattr(turn, draw)((25,))[0] for turn in turns]).double().numpy()
        assert numbers.shape == (40, 40, 25)
        for sample in (numbers, numbers[:, 0, 0], numbers[0, :, 0], numbers[0, 0]):
            assert stats.kstest(sample.ravel(), law.cdf).pvalue > 1e-3
        for axis in range(3):
            ahead = np.moveaxis(numbers, axis, 0)
            assert abs(np.corrcoef(ahead[1:].ravel(), ahead[:-1].ravel())[0, 1]) < 4 / np.sqrt(numbers.size)
        assert abs(np.corrcoef(numbers[..., :12].ravel(), numbers[..., 13:].ravel())[0, 1]) < 6 / np.sqrt(numbers.size)
    (uniforms,) = Counter.of([2**40], "cpu").uniform((200_000,))
    assert 0 < uniforms.min() < 1e-4
    assert 1 - 1e-4 < uniforms.max() < 1


def test_shapes_are_cut_from_one_stream():
    counter = Counter.of([3, 7], "cpu")
    for draw in (counter.uniform, counter.normal):
        (whole,) = draw((11,))
        first, second = draw((2, 3), (5,))
        assert torch.equal(torch.cat([first.flatten(1), second], dim=1), whole)


def test_a_run_depends_on_its_own_seed_alone():
    (among,) = Counter.of([4, 9, 2**33 + 9], "cpu").following().uniform((6,))
    assert torch.equal(Counter.of([9], "cpu").following().uniform((6,))[0], among[1:2])
    assert len(among.unique()) == among.numel()
    assert not torch.equal(Counter.of([9], "cpu").uniform((6,))[0], among[1:2])
