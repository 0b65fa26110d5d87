// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"database/sql"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Signed is a security.txt with its cleartext signature (RFC 9116 section 2.3), for one place.
type Signed struct {
	Host    string    `json:"host" doc:"The manufacturer's own site that it was made for; empty: served by this platform"`
	Body    string    `json:"body"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
}

func signedOf(tx *store.Tx, t, where string, args ...any) ([]Signed, error) {
	rows, err := tx.Query(`SELECT host, body, made, expires FROM disclosure_securitytxt WHERE tenant = $1 AND `+where+` ORDER BY host`, append([]any{t}, args...)...)
	return store.Collect(rows, err, func(r *sql.Rows) (x Signed, err error) {
		var made, expires int64
		err = r.Scan(&x.Host, &x.Body, &made, &expires)
		x.Made, x.Expires = store.Time(made), store.Time(expires)
		return x, err
	})
}

// address is where a tenant's public pages stand.
func (s *Service) address(t string) string { return s.cfg.URL + "/security/" + t }

// text is what the tenant's file for the host says until expires. What the contact leaves out is this platform's own.
func (s *Service) text(ctx context.Context, t, host string, expires time.Time) (string, error) {
	c := Contact{}
	set, err := s.contact(ctx, `c.tenant = $1`, t)
	if err != nil {
		return "", err
	}
	if set != nil {
		c = *set
	}
	at := s.address(t)
	own := func(v *string, path string) {
		if *v == "" {
			*v = path
		}
	}
	if form := at + "/report"; !slices.Contains(c.Contacts, form) {
		c.Contacts = append(slices.Clone(c.Contacts), form)
	}
	own(&c.Policy, at)
	own(&c.Acknowledgments, at+"/thanks")
	own(&c.CSAF, s.cfg.CSAF(ctx, t))
	encryption := []string{c.Encryption}
	if c.Encryption == "" {
		encryption = []string{at + "/openpgp.asc", at + "/age.txt"}
	}
	if len(c.PreferredLocales) == 0 {
		p, err := s.policy(ctx, t)
		if err != nil {
			return "", err
		}
		c.PreferredLocales = p.Languages
	}
	return c.Text(s.canonical(c, host), encryption, expires), nil
}

// canonical lists where the file may be found.
func (s *Service) canonical(c Contact, host string) (out []string) {
	const path = "/.well-known/security.txt"
	here, err := url.Parse(s.cfg.URL)
	switch {
	case host != "":
		return []string{"https://" + host + path}
	case len(c.Hosts) == 0 || err != nil:
		return []string{s.cfg.URL + path}
	}
	for _, h := range c.Hosts {
		if h == here.Hostname() {
			h = here.Host
		}
		out = append(out, "https://"+h+path)
	}
	return out
}

// sign makes, signs and keeps the file for the host. It is replaced in time, or people are told that it was not.
func (s *Service) sign(ctx context.Context, t, actor, host string) (Signed, error) {
	x := Signed{Host: host, Made: s.now().Truncate(time.Second)}
	x.Expires = x.Made.Add(expiresAfter)
	plain, err := s.text(ctx, t, host, x.Expires)
	if err != nil {
		return x, err
	}
	name, err := s.cfg.Maker(ctx, t)
	if err != nil {
		return x, err
	}
	key, err := s.cfg.PGP.Signer(ctx, t, actor, name)
	if err != nil {
		return x, err
	}
	body, err := s.cfg.PGP.ClearSign(key, []byte(plain))
	if err != nil {
		return x, err
	}
	x.Body = string(body)
	return x, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO disclosure_securitytxt(tenant, host, body, made, expires) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (tenant, host) DO UPDATE SET body = excluded.body, made = excluded.made, expires = excluded.expires`, t, host, x.Body, store.Millis(x.Made), store.Millis(x.Expires))
		if err != nil {
			return err
		}
		if host == "" {
			err = s.cfg.DB.Enqueue(tx, jobRenew, t, x.Made.Add(renewEvery), gather{t})
		} else {
			err = audit.Append(tx, audit.Entry{Tenant: t, Actor: actor, Kind: "securitytxt.made", Subject: t, Data: map[string]any{"host": host, "expires": x.Expires}})
		}
		if err != nil {
			return err
		}
		return s.cfg.DB.Enqueue(tx, jobExpiring, t+" "+host+" "+x.Expires.Format(time.RFC3339), x.Expires.Add(-expiringAhead), ending{t, host, store.Millis(x.Expires)})
	})
}

// served is the file that this platform serves for the tenant: the kept one while it says what it would say now.
func (s *Service) served(ctx context.Context, t string) (Signed, error) {
	var kept []Signed
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { kept, err = signedOf(tx, t, `host = ''`); return err }); err != nil {
		return Signed{}, err
	}
	if len(kept) == 1 && s.now().Before(kept[0].Expires) {
		now, err := s.text(ctx, t, "", kept[0].Expires)
		if err != nil {
			return Signed{}, err
		}
		if strings.Contains(kept[0].Body, now) {
			return kept[0], nil
		}
	}
	return s.sign(ctx, t, "system", "")
}

// ending is a job: whether the file that ends then was replaced.
type ending struct {
	Tenant, Host string
	Expires      int64
}

// renew signs the file that is served anew, long before it ends.
func (s *Service) renew(ctx context.Context, j store.Job) error {
	var g gather
	if err := j.Decode(&g); err != nil {
		return err
	}
	_, err := s.sign(ctx, g.Tenant, "system", "")
	return err
}

// expiring tells people of a file that nothing replaced: one that could not be signed anew, or that was made for a site of
// the manufacturer's own and must be fetched again.
func (s *Service) expiring(ctx context.Context, j store.Job) error {
	var e ending
	if err := j.Decode(&e); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		kept, err := signedOf(tx, e.Tenant, `host = $2`, e.Host)
		if err != nil || len(kept) != 1 || store.Millis(kept[0].Expires) != e.Expires {
			return err
		}
		return s.cfg.DB.Emit(tx, TopicExpiring, e.Tenant, e.Tenant, Expiring{e.Host, kept[0].Expires})
	})
}

// SecurityTxt serves /.well-known/security.txt (RFC 9116) of the tenant that answers for the host. While that is open it is
// not found.
func (s *Service) SecurityTxt(w http.ResponseWriter, r *http.Request) {
	t, err := s.answering(r.Context(), r.Host)
	var x Signed
	if err == nil && t != "" {
		x, err = s.served(r.Context(), t)
	}
	switch {
	case err != nil:
		s.cfg.Log.ErrorContext(r.Context(), "security.txt", slog.Any("error", err))
		http.Error(w, "security.txt cannot be read now.", http.StatusServiceUnavailable)
		return
	case t == "":
		http.Error(w, "Nobody has said yet where vulnerabilities are to be reported.", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write([]byte(x.Body))
}

// MakeSecurityTxt signs a file for a site of the manufacturer's own. It lies there, so a person replaces it before it ends.
func (s *Service) MakeSecurityTxt(ctx context.Context, host string) (Signed, error) {
	a, err := who(ctx, tenant.CaseDeclare, "")
	if err != nil {
		return Signed{}, err
	}
	if !hostName.MatchString(host) {
		return Signed{}, problem.Invalid("%q is not a host name in lower case without a port.", host).At("host")
	}
	return s.sign(ctx, a.Tenant, a.ID, host)
}

// SecurityTxtOf is the file that was signed for a site of the manufacturer's own, or for this platform ("").
func (s *Service) SecurityTxtOf(ctx context.Context, host string) (Signed, error) {
	all, err := s.SecurityTxts(ctx)
	for _, x := range all {
		if x.Host == host {
			return x, err
		}
	}
	if err == nil {
		err = problem.NotFound("No security.txt was signed for %.253q.", host)
	}
	return Signed{}, err
}

// SecurityTxts lists the files that were signed for the tenant.
func (s *Service) SecurityTxts(ctx context.Context) (out []Signed, err error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return nil, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { out, err = signedOf(tx, a.Tenant, `host >= ''`); return err })
	return out, err
}
