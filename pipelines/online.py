from reverie.pipelines.baseline_config import BaselineStage


def train_online(config: BaselineStage) -> None:
    raise NotImplementedError
