-- SPDX-License-Identifier: AGPL-3.0-only
-- Which device a TPM (the digest of its endorsement key) is of: whichever proved a key with it first. One that several have
-- shown before this rule stays with the first.
CREATE TABLE endorsed (
	tenant text NOT NULL,
	ek text NOT NULL,
	device text NOT NULL,
	PRIMARY KEY (tenant, ek)
);
INSERT INTO endorsed(tenant, ek, device)
	SELECT a.tenant, a.ek, min(a.device) FROM attestation a
	WHERE a.at = (SELECT min(b.at) FROM attestation b WHERE b.tenant = a.tenant AND b.ek = a.ek) GROUP BY a.tenant, a.ek;
DROP INDEX attestation_ek;
