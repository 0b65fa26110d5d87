// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"encoding/binary"
	"errors"

	"github.com/openthings-platform/openthings/gateway"
)

const (
	recordsVersion = 2
	rowRecords     = 300      // records in one inbox row at most
	maxField       = 64 << 20 // of one record; the gateway's own limits are far below
)

var errRecords = errors.New("telemetry: damaged inbox row")

// encodeRecords packs records as they came: version, count, and per record tenant, device, topic, media type, time, boot,
// seq and body, each text with its length in front. Version 1 had neither media type nor boot and seq.
func (c codec) encodeRecords(records []gateway.Record) []byte {
	size := 16
	for _, r := range records {
		size += len(r.Tenant) + len(r.Device) + len(r.Topic) + len(r.Type) + len(r.Body) + 40
	}
	b := append(make([]byte, 0, size), recordsVersion)
	b = binary.AppendUvarint(b, uint64(len(records)))
	for _, r := range records {
		for _, s := range []string{r.Tenant, r.Device, r.Topic, r.Type} {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
		b = binary.AppendVarint(b, r.At)
		b = binary.AppendUvarint(b, r.Boot)
		b = binary.AppendUvarint(b, r.Seq)
		b = binary.AppendUvarint(b, uint64(len(r.Body)))
		b = append(b, r.Body...)
	}
	return c.fast.EncodeAll(b, nil)
}

func (c codec) decodeRecords(body []byte) ([]gateway.Record, error) {
	b, err := c.dec.DecodeAll(body, nil)
	if err != nil {
		return nil, errors.Join(errRecords, err)
	}
	r := reader{b: b}
	all := string(b) // one string that all texts are parts of
	text := func() string {
		n := len(r.bytes(r.count(maxField)))
		end := len(all) - len(r.b)
		if r.bad {
			return ""
		}
		return all[end-n : end]
	}
	version := r.byte()
	if version != 1 && version != recordsVersion {
		return nil, errRecords
	}
	records := make([]gateway.Record, r.count(rowRecords))
	for i := range records {
		for _, s := range []*string{&records[i].Tenant, &records[i].Device, &records[i].Topic} {
			*s = text()
		}
		if version > 1 {
			records[i].Type = text()
		}
		records[i].At = r.varint()
		if version > 1 {
			records[i].Boot, records[i].Seq = r.uvarint(), r.uvarint()
		}
		records[i].Body = r.bytes(r.count(maxField))
	}
	if r.bad || len(r.b) != 0 {
		return nil, errRecords
	}
	return records, nil
}
