"A box as pixels"
import cv2, numpy as np

def mask(quad, w, h, ss=8):
    "Pixels of a `w` x `h` image at least half inside `quad`, by `ss`-fold supersampling"
    big = np.zeros((h*ss, w*ss), np.uint8)
    cv2.fillConvexPoly(big, np.round((np.asarray(quad, float)*ss-.5)*16).astype(np.int32), 255, shift=4)
    return cv2.resize(big, (w,h), interpolation=cv2.INTER_AREA)
