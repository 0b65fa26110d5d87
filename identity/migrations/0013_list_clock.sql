-- Lists that were signed by a clock which was ahead, without reading the others.
CREATE INDEX crl_updated ON crl (updated);
