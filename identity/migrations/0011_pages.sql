-- All that an authority signed is gone through list by list, some hundred at a time: in this order, without sorting.
DROP INDEX certificate_authority;
CREATE INDEX certificate_authority ON certificate (authority, shard, fp);
