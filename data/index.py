"""The documented name of the index of shards, which stands in `data.shards.index`."""

from reverie.data.shards.index import ShardIndex

__all__ = ["ShardIndex"]
