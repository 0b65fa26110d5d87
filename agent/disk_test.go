// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"os"
	"testing"
)

func TestBootRecordSurvivesATornCopy(t *testing.T) {
	d := disk{dir: t.TempDir()}
	r := record{Active: "a", Floor: 1}
	for floor := int64(1); floor <= 5; floor++ {
		r.Floor = floor
		if err := d.save(&r); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.load(); err != nil || got.Floor != 5 {
		t.Fatalf("loaded %+v, %v", got, err)
	}
	newest, err := d.read("boot.1")
	if err != nil {
		t.Fatal(err)
	}
	for name, torn := range map[string][]byte{
		"empty": nil, "half": newest[:len(newest)/2], "one bit": bytes.Replace(newest, []byte(`"floor":5`), []byte(`"floor":4`), 1),
		"no slot": []byte(`{"crc":0,"record":{}}`),
	} {
		if err := os.WriteFile(d.path("boot.1"), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := d.load(); err != nil || got.Floor != 4 {
			t.Errorf("%s: loaded %+v, %v; want the copy before", name, got, err)
		}
	}
	if err := os.WriteFile(d.path("boot.0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.load(); err == nil {
		t.Error("a record was made of nothing: the floor would be forgotten")
	}
}

func FuzzBootRecord(f *testing.F) {
	f.Add([]byte(`{"crc":3363471374,"record":{"seq":1,"boot":0,"active":"a","floor":0,"data_floor":0,"metadata":0}}`))
	f.Add([]byte(`{"crc":0,"record":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := readRecord(b)
		if !ok {
			return
		}
		d := disk{dir: t.TempDir()}
		if err := d.save(&r); err != nil {
			t.Fatal(err)
		}
		back, err := d.load()
		if err != nil || back.Seq != r.Seq || back.Active != r.Active {
			t.Fatalf("%+v became %+v, %v", r, back, err)
		}
	})
}

func FuzzReadCertsOnly(f *testing.F) {
	f.Add([]byte("MIIBBwYJKoZIhvcNAQcCoIH5MIH2AgEBMQAwCwYJKoZIhvcNAQcBoIHb"))
	f.Add([]byte("MAA="))
	f.Add([]byte("not base64"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if certs, err := readCertsOnly(b); err == nil && (len(certs) == 0 || len(certs) > maxCerts) {
			t.Fatalf("%d certificates", len(certs))
		}
	})
}

func FuzzOffer(f *testing.F) {
	f.Add([]byte(`{"update":"upd_1","release":"rel_1","target":"p/1","not_after":1}`))
	f.Add([]byte(`{"update":"../x","release":"","target":"","not_after":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, ok := readOffer(b)
		if ok && (!idShape.MatchString(o.Update) || !idShape.MatchString(o.Release)) {
			t.Fatalf("%+v reaches paths and topics", o)
		}
	})
}
