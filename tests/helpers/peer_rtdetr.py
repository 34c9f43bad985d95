"""What RT-DETR of `transformers` (Apache 2.0) makes of formula weights, as a small file for tests/interop/test_rtdetr.py: answers of all
stages and losses of its size r18, made from a config, without a download.

    python peer_rtdetr.py OUT.npz

It is no test, and nothing imports it."""
import sys
import numpy as np, torch
from formula import formula_image, formula_value

SIZE,KEPT,K,QUERIES = 96,300,7,30
BOXES = [[[.3,.4,.3,.2],[.7,.6,.2,.4],[.5,.5,.6,.6]],[[.4,.3,.2,.2]]]
LABELS = [[0,3,6],[2]]

def thin(tensor):
    flat = tensor.detach().flatten()
    return flat[::max(1, -(-len(flat)//KEPT))].numpy()

if __name__=='__main__':
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig
    body = RTDetrResNetConfig(embedding_size=64, out_features=['stage2','stage3','stage4'], depths=[2,2,2,2],
                              hidden_sizes=[64,128,256,512], layer_type='basic')
    model = RTDetrForObjectDetection(RTDetrConfig(backbone_config=body, num_labels=K, num_queries=QUERIES, hidden_expansion=.5,
                                                  encoder_in_channels=[128,256,512], decoder_layers=3)).eval()
    shapes = {key:tuple(tensor.shape) for key,tensor in model.state_dict().items()}
    model.load_state_dict({key:torch.tensor(formula_value(key, shape)) for key,shape in shapes.items()})
    labels = [dict(class_labels=torch.tensor(own), boxes=torch.tensor(boxes)) for own,boxes in zip(LABELS, BOXES)]
    with torch.no_grad(): out = model(torch.tensor(formula_image(SIZE, 2)), labels=labels)
    losses = {f'loss/{key}':value.item() for key,value in out.loss_dict.items()}
    print(losses, out.logits.std(), out.pred_boxes.std())
    np.savez_compressed(sys.argv[1], keys='\n'.join(f'{key} {" ".join(map(str, shape))}' for key,shape in shapes.items()),
                        cells=thin(out.enc_topk_logits), starts=thin(out.enc_topk_bboxes), logits=thin(out.intermediate_logits),
                        boxes=thin(out.intermediate_reference_points), **losses)
