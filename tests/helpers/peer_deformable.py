"""What Deformable DETR of `transformers` (Apache 2.0), with refined boxes and two stages, makes of formula weights, as a small file for
tests/interop/test_deformable.py: answers of all stages and losses, made from a config, without a download.

    python peer_deformable.py OUT.npz

It is no test, and nothing imports it."""
import sys
import numpy as np, torch
from formula import formula_image, formula_value
from peer_rtdetr import BOXES, LABELS, thin

SIZE,K,QUERIES = 128,7,30

def key_once(key):
    "The name that goes into the formula, for layers that stand there under two"
    return key.replace('model.decoder.', '') if '_embed.' in key else key

if __name__=='__main__':
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection
    model = DeformableDetrForObjectDetection(DeformableDetrConfig(
        use_timm_backbone=True, backbone='resnet18', use_pretrained_backbone=False, two_stage=True, with_box_refine=True, num_labels=K,
        two_stage_num_proposals=QUERIES, encoder_layers=2, decoder_layers=2, class_cost=2, auxiliary_loss=True)).eval()
    shapes = {key:tuple(tensor.shape) for key,tensor in model.state_dict().items()}
    model.load_state_dict({key:torch.tensor(formula_value(key_once(key), shape)) for key,shape in shapes.items()})
    labels = [dict(class_labels=torch.tensor(own), boxes=torch.tensor(boxes)) for own,boxes in zip(LABELS, BOXES)]
    with torch.no_grad():
        x = torch.tensor(formula_image(SIZE, 2))
        out = model(x, labels=labels)
        cells = out.enc_outputs_class[...,0].sort(descending=True)[0]
        logits = torch.stack([one['logits'] for one in out.auxiliary_outputs]+[out.logits], 1)
        boxes = torch.stack([one['pred_boxes'] for one in out.auxiliary_outputs]+[out.pred_boxes], 1)
    losses = {f'loss/{key}':value.item() for key,value in out.loss_dict.items()}
    print(losses, logits.std(), boxes.std(), logits.shape, cells[:,QUERIES-1]-cells[:,QUERIES])
    np.savez_compressed(sys.argv[1], keys='\n'.join(f'{key} {" ".join(map(str, shape))}' for key,shape in shapes.items()),
                        cells=thin(cells[:,:QUERIES]), starts=thin(out.init_reference_points), logits=thin(logits),
                        boxes=thin(boxes), **losses)
