# SPDX-License-Identifier: Apache-2.0
"""The network of the fast profile: its geometry, and what it says before it is trained."""

import math

import pytest
import torch

from maskrnn_ros.model.network import (
    CROP,
    HIDDEN,
    LOG_ODDS,
    FastNet,
    Hidden,
    apply_deltas,
    cell_centres,
    crop,
    deltas_of,
    paste,
    scale_boxes,
    warp_hidden,
)

SIZE, CELLS = (96, 160), (24, 40)


def frame(net: FastNet):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(1, channels, -(-SIZE[0] // s), -(-SIZE[1] // s), generator=generator)
            for channels, s in ((24, 4), (40, 8), (112, 16))]  # fmt: skip
    images = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8, generator=generator)
    return net.encode(images, maps, torch.rand(1, 2, *CELLS, generator=generator))


def test_an_untrained_network_says_the_weighted_sum_of_what_the_parts_say():
    net = FastNet()
    planes = torch.tensor([0.5, -0.25, 0.75])[None, :, None, None].expand(1, 3, *CELLS)
    box = torch.tensor([[40.0, 20.0, 104.0, 84.0]])
    output = net(frame(net), torch.zeros(1, dtype=torch.int64), box, box, planes, None)
    expected = LOG_ODDS * (0.25 * 0.5 - 0.25 * 0.25 + 0.75)
    torch.testing.assert_close(output.log_odds, torch.full((1, CROP, CROP), expected))
    assert output.deltas.tolist() == [[0, 0, 0, 0]] and output.presence.tolist() == [0]


def test_objects_of_a_batch_do_not_depend_on_each_other():
    torch.manual_seed(1)
    net = FastNet()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    boxes = torch.tensor([[40.0, 20.0, 104.0, 84.0], [-10.0, -10.0, 60.0, 60.0]])
    planes = torch.rand(2, 3, *CELLS) * 2 - 1
    shared = frame(net)
    both = net(shared, torch.zeros(2, dtype=torch.int64), boxes, boxes, planes, None)
    for k in range(2):
        alone = net(
            shared, torch.zeros(1, dtype=torch.int64), boxes[k : k + 1], boxes[k : k + 1], planes[k : k + 1], None
        )
        torch.testing.assert_close(alone.log_odds[0], both.log_odds[k], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.presence[0], both.presence[k], atol=1e-4, rtol=1e-4)


def test_deltas_are_those_of_fast_rcnn_and_have_an_inverse():
    prior, box = torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([[14.0, 20.0, 54.0, 40.0]])
    expected = [(34 - 20) / 20, (30 - 40) / 40, math.log(2), math.log(0.5)]
    torch.testing.assert_close(deltas_of(box, prior), torch.tensor([expected]))
    torch.testing.assert_close(apply_deltas(prior, deltas_of(box, prior)), box)


def test_boxes_grow_about_their_centres():
    assert scale_boxes(torch.tensor([[10.0, 20.0, 30.0, 60.0]]), 1.5).tolist() == [[5, 10, 35, 70]]


def test_cell_centres_are_in_the_middle_of_the_cells():
    centres = cell_centres(torch.tensor([[10.0, 100.0, 18.0, 104.0]]), 4)
    assert centres[0, 0, :, 0].tolist() == [11, 13, 15, 17]
    assert centres[0, :, 0, 1].tolist() == [100.5, 101.5, 102.5, 103.5]


def test_a_crop_pasted_back_is_what_was_cut_out():
    ramp = torch.arange(SIZE[1]).float().expand(1, 1, *SIZE) + 3 * torch.arange(SIZE[0])[:, None]
    box = torch.tensor([[16.0, 8.0, 80.0, 72.0]])  # a cell is a pixel
    cut = crop(ramp, torch.cat([torch.zeros(1, 1), box], dim=1), CROP, 1.0)
    whole = paste(cut[:, 0], box, SIZE, outside=-1.0)
    torch.testing.assert_close(whole[0, 8:72, 16:80], ramp[0, 0, 8:72, 16:80])
    whole[0, 8:72, 16:80] = -1.0
    assert (whole == -1.0).all()


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (8, 0), (0, -4), (-12, 8)])
def test_the_hidden_state_goes_where_its_object_goes(dx, dy):
    """The object moved by (dx, dy) and its crop with it: in the crop nothing has moved."""
    state = torch.rand(1, HIDDEN, CROP // 2, CROP // 2)
    old = torch.tensor([[40.0, 20.0, 104.0, 84.0]])
    back = torch.tensor([-dx, -dy]).float()[None, :, None, None].expand(1, 2, *CELLS)
    new = old + torch.tensor([dx, dy, dx, dy])
    moved = warp_hidden(Hidden(state, old), new, back, torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(moved, state, atol=1e-4, rtol=1e-4)


def test_what_was_outside_the_old_crop_is_not_remembered():
    state = torch.ones(1, HIDDEN, CROP // 2, CROP // 2)
    old, new = torch.tensor([[0.0, 0.0, 32.0, 32.0]]), torch.tensor([[64.0, 32.0, 96.0, 64.0]])
    moved = warp_hidden(Hidden(state, old), new, torch.zeros(1, 2, *CELLS), torch.zeros(1, dtype=torch.int64))
    assert (moved == 0).all()
