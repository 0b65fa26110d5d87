-- What an issuer keeps is looked up by its serial number.
CREATE INDEX certificate_serial ON certificate (serial);
