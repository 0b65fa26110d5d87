-- Certificates in service by their end: which devices did not renew.
CREATE INDEX certificate_ending ON certificate (tenant, kind, phase, not_after);
