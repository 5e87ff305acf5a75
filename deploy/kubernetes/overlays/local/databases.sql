-- Not run here: PostgreSQL's own entry point runs it at its first start.
CREATE DATABASE shard0;
CREATE DATABASE shard1;
CREATE DATABASE shard2;
CREATE DATABASE shard3;
