// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to copy a database as a backup does

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity/keystore"
	"github.com/openthings-platform/openthings/seal"
)

// TestSecretsAreNowhere plants every secret that the platform hands out or is given and looks for it in the log, in
// each file of the data folder and, on PostgreSQL, in each row.
func TestSecretsAreNowhere(t *testing.T) {
	storetestEach(t, func(t *testing.T, w *world) {
		setup := w.info.Setup[strings.LastIndex(w.info.Setup, "/")+1:]
		m := w.newMaker("Acme")
		u := m.make()
		c := w.client(nil)
		ask := func(method, path, token, body string) answer {
			a, err := w.do(c, method, w.info.URL+path, token, "application/json", []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		w.text = append(w.text, setup)
		// A token and an invitation over the API, a setup link that is opened, a ceremony that is begun and never ends.
		var made struct{ Token, Path, URL, Link string }
		a := ask("POST", "/v1/tokens", m.owner, `{"name":"robot","role":"auditor","expires":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)
		if json.Unmarshal(a.body, &made) != nil || made.Token == "" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		w.text = append(w.text, made.Token, made.Token[strings.LastIndex(made.Token, "_")+1:])
		a = ask("POST", "/v1/people", m.owner, `{"name":"Ann","role":"auditor"}`)
		i := bytes.Index(a.body, []byte("/enter/"))
		if i < 0 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		invitation := strings.FieldsFunc(string(a.body[i+len("/enter/"):]), func(r rune) bool { return strings.ContainsRune(`"\, }`, r) })[0]
		w.text = append(w.text, invitation)
		for _, link := range []string{setup, invitation} {
			ask("GET", "/enter/"+link, "", "")
			a := ask("POST", "/enter/"+link+"/begin", "", `{"name":"Ann","organisation":"Acme"}`)
			for _, cookie := range a.header.Values("Set-Cookie") {
				if v, _, _ := strings.Cut(cookie, ";"); len(v) > 30 {
					_, v, _ = strings.Cut(v, "=")
					w.text = append(w.text, v)
				}
			}
			ask("POST", "/enter/"+link+"/finish", "", `{"id":"x"}`)
		}
		// Mistakes must not be written down either: a wrong token, a code typed twice.
		wrong := "ot_" + strings.Repeat("w", 26) + "_" + strings.Repeat("n0tatoken", 6)
		ask("GET", "/v1/me", wrong, "")
		w.text = append(w.text, wrong)
		ask("POST", "/v1/claims", m.owner, `{"code":"`+u.claim+`","solution":"`+m.solution+`"}`)
		if w.cfg.Database != "" {
			u, err := url.Parse(w.cfg.Database)
			if err != nil {
				t.Fatal(err)
			}
			password, _ := u.User.Password()
			w.text = append(w.text, password)
		}
		secrets := map[string][]byte{}
		for _, s := range w.text {
			if len(s) < 16 {
				t.Fatalf("%q is too short to be looked for", s)
			}
			secrets[s] = []byte(s)
		}
		for name, scalar := range w.caKeys() {
			secrets[name] = scalar
			secrets[name+", hex"] = []byte(hex.EncodeToString(scalar))
			secrets[name+", base64"] = []byte(base64.StdEncoding.EncodeToString(scalar)[:40])
		}
		w.stop()
		if n := len(w.text); n < 11 {
			t.Errorf("only %d secrets were planted", n)
		}
		search := func(where string, b []byte) {
			for name, s := range secrets {
				if bytes.Contains(b, s) {
					t.Errorf("%s holds %s in the clear", where, name)
				}
			}
			if bytes.Contains(b, []byte("PRIVATE KEY")) {
				t.Errorf("%s holds a PEM of a private key", where)
			}
		}
		search("the log", []byte(w.log.String()))
		files := 0
		err := filepath.WalkDir(w.cfg.Data, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			files++
			b, err := os.ReadFile(path)
			search(path, b)
			if st, e := os.Stat(path); e == nil && st.Mode().Perm()&0o077 != 0 && filepath.Ext(path) != ".pem" && filepath.Ext(path) != ".pub" && filepath.Ext(path) != ".crt" {
				t.Errorf("%s has mode %v", path, st.Mode())
			}
			return err
		})
		if err != nil || files < 8 {
			t.Errorf("%d files: %v", files, err)
		}
		if w.cfg.Database != "" {
			search("the database", dump(t, w.cfg.Database))
		}
	})
}

// caKeys are the raw private scalars of the authorities, read the only way there is: with the platform key.
func (w *world) caKeys() map[string][]byte {
	w.t.Helper()
	keys, err := seal.Open(filepath.Join(w.cfg.Data, "keys"), clock.System)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, name := range []string{"root-1", "anchor-1", "factory-1", "operational-1", "server-1", "bootstrap-1"} {
		sealed, err := os.ReadFile(filepath.Join(w.cfg.Data, "ca", name+".key"))
		if err != nil {
			w.t.Fatal(err)
		}
		plain, err := keys.Unwrap(keystore.Purpose(name), sealed)
		if err != nil {
			w.t.Fatal(err)
		}
		key, err := x509.ParsePKCS8PrivateKey(plain)
		if err != nil {
			w.t.Fatal(err)
		}
		if out["the private key of "+name], err = key.(*ecdsa.PrivateKey).Bytes(); err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

// dump is every row of every table as text.
func dump(t *testing.T, databaseURL string) []byte {
	t.Helper()
	db, err := sql.Open("pgx", databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	strs := func(query string) (out []string) {
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		return out
	}
	var b bytes.Buffer
	tables := strs(`SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`)
	for _, table := range tables {
		for _, row := range strs(`SELECT to_jsonb(x)::text FROM "` + table + `" x`) {
			b.WriteString(row)
			// Bytes are shown in hex; what they say counts too.
			for _, h := range strings.Split(row, `"\\x`)[1:] {
				raw, _ := hex.DecodeString(h[:max(0, strings.IndexByte(h, '"'))])
				b.Write(raw)
			}
			b.WriteByte('\n')
		}
	}
	if len(tables) < 20 || b.Len() < 5000 {
		t.Errorf("%d tables, %d bytes", len(tables), b.Len())
	}
	return b.Bytes()
}

// TestRestoredBackupTrustsNobodyTooMuch: a backup of the databases from before a device was deprovisioned is put back.
// The device stays out, at every door, from the first moment on; the others come in.
func TestRestoredBackupTrustsNobodyTooMuch(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	gone, stays := m.make(), m.make()
	for _, u := range []*unit{gone, stays} {
		c, err := w.mqtt(u.ldevid)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	names := []string{"platform.db", "telemetry.db"}
	backup := t.TempDir()
	for _, name := range names { // as an operator does while the platform runs
		db, err := sql.Open("sqlite", "file:"+filepath.Join(w.cfg.Data, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(`VACUUM INTO '` + filepath.Join(backup, name) + `'`); err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	w.post(m.owner, "/v1/devices/"+gone.id+"/deprovision", map[string]any{"reason": "stolen", "without_wipe": true}, nil)
	w.stop()
	for _, name := range names {
		for _, old := range []string{name, name + "-wal", name + "-shm"} {
			if err := os.Remove(filepath.Join(w.cfg.Data, old)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(filepath.Join(backup, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.cfg.Data, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.expectErrors = true // the log has to tell the operator
	w.start()
	refused := func() {
		t.Helper()
		if c, err := w.mqtt(gone.ldevid); err == nil {
			c.Close()
			t.Error("the deprovisioned device has an MQTT session")
		}
		if a, err := w.do(w.client(&gone.ldevid), "POST", w.info.Devices+"/d/1/messages", "", "application/json", []byte("[]")); err == nil {
			t.Errorf("the deprovisioned device sends: %d %s", a.status, a.body)
		}
		if a, err := w.do(w.client(&gone.idevid), "POST", w.info.Devices+"/.well-known/est/simpleenroll", "", "application/pkcs10", csrPEM(t, newKey(t), "x")); err == nil {
			t.Errorf("the deprovisioned device enrols again: %d %s", a.status, a.body)
		}
	}
	refused()
	if !strings.Contains(w.log.String(), "behind") {
		t.Error("nothing in the log says that the database is behind")
	}
	if a, err := w.do(w.client(&stays.ldevid), "POST", w.info.Devices+"/d/1/messages", "", "application/json", []byte("[]")); err == nil {
		t.Errorf("a door is open before anybody has looked: %d", a.status)
	}
	if err := w.h.audit.Acknowledge(t.Context(), "host", "the disk broke"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C { // until the lost revocations are in force and the data is gone again
		c, err := w.mqtt(stays.ldevid)
		if err == nil {
			c.Close()
		}
		_, erased, derr := w.h.keys.Destroyed(t.Context(), w.h.db, m.tenant, gone.id)
		if err == nil && derr == nil && erased {
			break
		}
		refused()
		if time.Now().After(deadline) {
			t.Fatalf("the house has not recovered: %v; erased %v %v", err, erased, derr)
		}
	}
	refused()
	a, err := w.do(w.client(nil), "GET", w.info.URL+"/v1/devices/"+gone.id, m.owner, "", nil)
	if err != nil || a.status != 200 || !strings.Contains(string(a.body), `"state":"deprovisioned"`) {
		t.Errorf("the device after the restore: %d %s %v", a.status, a.body, err)
	}
}
