# what makes `predict_image`, `report` ... methods, so that a learner opened from a file has them too
from . import infer, predictor, report, tta
