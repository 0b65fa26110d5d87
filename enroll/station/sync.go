// SPDX-License-Identifier: AGPL-3.0-only

package station

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// batchSize is how many entries go in one request.
const batchSize = 200

// Status is where a station stands.
type Status struct {
	Config
	Offline     bool      `json:"offline"`
	Certificate time.Time `json:"certificate_until"`
	Made        int       `json:"made"`    // units, offline
	Entries     int       `json:"entries"` // of the journal
	Head        string    `json:"head,omitempty"`
	SyncBy      time.Time `json:"sync_by,omitzero"`
}

// Status says where the station stands, without asking anybody.
func (s *Station) Status() Status {
	st := Status{Config: s.Config, Offline: s.Offline(), Certificate: s.cert.NotAfter, Made: len(s.units), Entries: len(s.log), Head: s.head}
	if s.permit != nil {
		st.SyncBy = store.Time(s.permit.SyncBy)
	}
	return st
}

// Report is what a synchronisation came to.
type Report struct {
	Brought int                `json:"brought"` // entries that the platform had not
	Entries int                `json:"entries"` // entries that it has now
	Refused []wire.RefusedUnit `json:"refused"`
}

// Sync brings the platform the entries that it has not. It may be repeated after a lost answer: nothing is brought
// twice and nothing is left out.
func (s *Station) Sync(ctx context.Context) (Report, error) {
	out := Report{Refused: []wire.RefusedUnit{}}
	if s.permit == nil {
		return out, problem.Conflict("The station works with the platform; there is nothing to bring.")
	}
	var at wire.JournalState
	if err := s.ask(ctx, http.MethodGet, "/d/1/line/journal", nil, &at); err != nil {
		return out, err
	}
	if int64(len(s.log)) < at.Seq || at.Seq > 0 && wire.Digest(s.log[at.Seq-1].Payload) != at.Head {
		// The platform must learn of it, and finds out by itself when it sees one entry of ours.
		err := problem.Forbidden("line.fork", "The platform has another journal of this station, with %d entries: this folder, or another, is a copy.", at.Seq).
			Hint("Stop both stations. Kill the station on the platform and look at what it made.")
		if n := min(int64(len(s.log)), at.Seq); n > 0 {
			if told := s.ask(ctx, http.MethodPost, "/d/1/line/journal", wire.Journal{Entries: s.log[n-1 : n]}, &at); told == nil {
				return out, err
			}
		}
		return out, err
	}
	for at.Seq < int64(len(s.log)) {
		part := s.log[at.Seq:min(at.Seq+batchSize, int64(len(s.log)))]
		before := at.Seq
		at = wire.JournalState{}
		if err := s.ask(ctx, http.MethodPost, "/d/1/line/journal", wire.Journal{Entries: part}, &at); err != nil {
			return out, err
		}
		if at.Seq <= before {
			return out, problem.Unavailable("The platform takes nothing.")
		}
		out.Brought += int(at.Seq - before)
		out.Refused = append(out.Refused, at.Refused...)
	}
	out.Entries = int(at.Seq)
	return out, nil
}

// MakeOnline asks the platform for a unit's identity, in a request that the station signs.
func (s *Station) MakeOnline(ctx context.Context, r wire.LineRequest) (out wire.LineResponse, err error) {
	r.Station, r.Time = s.ID, store.Millis(s.clock.Now())
	signed, err := wire.Sign(rand.Reader, s.key, r)
	if err != nil {
		return out, err
	}
	return out, s.ask(ctx, http.MethodPost, "/d/1/line/devices", signed, &out)
}

// Renew gets the next certificate of the station, for a new key. A power cut leaves the old one or the new one.
func (s *Station) Renew(ctx context.Context) error {
	key, err := s.disk.key(nextKeyFile) // the one of a renewal whose answer was lost, or a new one
	if err != nil {
		return err
	}
	csr, err := request(key, s.Name)
	if err != nil {
		return err
	}
	var out wire.StationCertificate
	if err := s.ask(ctx, http.MethodPost, "/d/1/line/renew", wire.StationRenewal{CSR: csr}, &out); err != nil {
		return err
	}
	if err := s.disk.write(certFile, []byte(out.Certificate)); err != nil {
		return err
	}
	return s.credential() // takes the new key over
}

// Due says whether the station's certificate wants to be renewed: less than a third of its life is left, and the window is
// longer. The certificate of an offline station lasts as long as it may bring what it made.
func (s *Station) Due() bool {
	left := s.cert.NotAfter.Sub(s.cert.NotBefore) / 3
	return !s.Offline() && s.cert.NotAfter.Before(s.Expires.Truncate(time.Second)) && !s.clock.Now().Before(s.cert.NotAfter.Add(-left))
}

// unreachable says why the platform could not be spoken to. A certificate that has ended does not come back by itself: whoever
// took a station that was switched off, or an old copy of its folder, would come back with it.
func (s *Station) unreachable(why error) error {
	if s.clock.Now().Before(s.cert.NotAfter) {
		return problem.Unavailable("The platform at %s cannot be reached, or does not take the station's certificate.", s.Devices).Because(why)
	}
	ended := problem.Precondition("The station's certificate ended on %s, and the platform at %s does not take it any more.", when(store.Millis(s.cert.NotAfter)), s.Devices).Because(why)
	if s.Offline() {
		return ended.Hint("What it has made and not brought until then is never taken: make those units anew, at another station. openthings station kill %s --reason \"...\" ends this one.", s.ID)
	}
	return ended.Hint("Look whether it is the station that you know, and admit it anew, in the same folder: openthings station open --dir %s --batch %s --name %q, with --quota and --hours for what is left. "+
		"Then end the one before: openthings station kill %s --reason \"it was admitted anew\".", s.disk.dir, s.Batch, s.Name, s.ID)
}

// ask speaks to the platform's device door with the station's certificate.
func (s *Station) ask(ctx context.Context, method, path string, in, out any) error {
	roots := x509.NewCertPool()
	b, err := s.disk.read(rootsFile)
	if err != nil {
		return err
	}
	if !roots.AppendCertsFromPEM(b) {
		return problem.Invalid("%s holds no certificate.", s.disk.path(rootsFile))
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Time: s.clock.Now,
		Certificates: []tls.Certificate{{Certificate: [][]byte{s.cert.Raw}, PrivateKey: s.key}}}}
	defer tr.CloseIdleConnections()
	var body io.Reader
	if in != nil {
		if b, err = json.Marshal(in); err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Devices+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: tr, Timeout: 2 * time.Minute}).Do(req)
	if err != nil {
		return s.unreachable(err)
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(io.LimitReader(resp.Body, 8<<20)); err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		return json.Unmarshal(b, out)
	}
	var p struct{ Detail, Hint, Rule string }
	if json.Unmarshal(b, &p) != nil || p.Detail == "" {
		return problem.Unavailable("The platform answers with status %d.", resp.StatusCode)
	}
	if resp.StatusCode == http.StatusForbidden {
		return problem.Forbidden(p.Rule, "%s", p.Detail).Hint("%s", p.Hint)
	}
	return problem.Invalid("%s", p.Detail).Hint("%s", p.Hint)
}
