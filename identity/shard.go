// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/openthings-platform/openthings/identity/status"
	"github.com/openthings-platform/openthings/store"
)

// shards hands out the revocation list that a new certificate belongs to. A node takes a whole shard of an authority at a
// time, so that nodes do not wait for each other at every certificate; a shard that was begun before a restart is left as
// it is.
type shards struct {
	mu   sync.Mutex // guards open
	open map[string]*block
}

type block struct {
	shard, left int64
	spare       int64 // the shard after it, taken ahead; 0: none yet
	asked       bool
}

// spareAt is how many certificates before its end a node takes the next shard.
const spareAt = status.PerShard / 4

// listed says whether this platform publishes revocation lists: it needs a name that others can reach, and an issuer
// that signs them.
func (s *Service) listed() bool {
	_, ok := s.cfg.Issuer.(CRLSigner)
	return ok && s.cfg.PublicURL != ""
}

// takeShard is the shard of one more certificate; 0 where no lists are published. It never gives a shard to more than
// status.PerShard certificates: what is counted in memory was taken durably before.
func (s *Service) takeShard(tx *store.Tx, authority string) (int64, error) {
	if !s.listed() {
		return 0, nil
	}
	p := &s.shards
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.open[authority]
	if b != nil && b.left == 0 && b.spare > 0 {
		b = &block{shard: b.spare, left: status.PerShard}
		p.open[authority] = b
	}
	if b != nil && b.left > 0 {
		if b.left--; b.left < spareAt && b.spare == 0 && !b.asked {
			b.asked = true
			go s.takeSpare(authority, b)
		}
		return b.shard, nil
	}
	shard, err := s.newShard(tx, authority) // for this one; for the others once it is durable
	if err != nil {
		return 0, err
	}
	tx.After(func() { s.opened(authority, shard, status.PerShard-1) })
	return shard, nil
}

// opened begins a shard that is durable, unless there is one in use.
func (s *Service) opened(authority string, shard, left int64) {
	s.shards.mu.Lock()
	defer s.shards.mu.Unlock()
	if b := s.shards.open[authority]; b == nil || b.left == 0 && b.spare == 0 {
		s.shards.open[authority] = &block{shard: shard, left: left}
	}
}

// returnShard takes back what takeShard counted and nothing was issued into.
func (s *Service) returnShard(authority string, shard int64) {
	s.shards.mu.Lock()
	defer s.shards.mu.Unlock()
	if b := s.shards.open[authority]; b != nil && b.shard == shard && shard > 0 {
		b.left++
	}
}

// stampStatus writes into a certificate where others learn whether it is still good.
func (s *Service) stampStatus(t *x509.Certificate, in Intent) {
	if s.cfg.PublicURL == "" {
		return
	}
	t.OCSPServer = []string{strings.TrimSuffix(s.cfg.PublicURL, "/") + "/ocsp"}
	if in.shard > 0 {
		t.CRLDistributionPoints = []string{listURL(s.cfg.PublicURL, in.authority, in.shard) + completeEnding}
	}
}

func (s *Service) takeSpare(authority string, b *block) {
	var shard int64
	err := s.cfg.DB.Write(context.Background(), func(tx *store.Tx) (err error) {
		shard, err = s.newShard(tx, authority)
		return err
	})
	s.shards.mu.Lock()
	defer s.shards.mu.Unlock()
	if b.asked = false; err != nil {
		s.cfg.Log.Warn("the next revocation list could not be prepared; it is when it is needed", slog.Any("error", err))
		return
	}
	b.spare = shard
}

// openShards takes a shard for each authority that signs for devices and stations now.
func (s *Service) openShards(ctx context.Context) error {
	s.shards.open = map[string]*block{}
	if !s.listed() {
		return nil
	}
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { // those of a version that did not ask since when
		_, err := tx.Exec(`UPDATE crl SET until = $1 WHERE number = 0 AND until = 0`, s.unsignedUntil())
		return err
	})
	if err != nil {
		return err
	}
	for _, role := range []Role{Factory, Operational} {
		a, err := s.ActiveAuthority(ctx, role)
		if err != nil {
			continue // none is active: nothing is issued
		}
		var shard int64
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
			shard, err = s.newShard(tx, a.ID)
			return err
		})
		if err != nil {
			return err
		}
		s.opened(a.ID, shard, status.PerShard)
	}
	return nil
}

// newShard makes the next shard of an authority; its list is signed within a second.
func (s *Service) newShard(tx *store.Tx, authority string) (shard int64, err error) {
	err = tx.QueryRow(`INSERT INTO crl_head(authority, shards) VALUES ($1, 1) ON CONFLICT (authority) DO UPDATE SET shards = crl_head.shards + 1 RETURNING shards`,
		authority).Scan(&shard)
	if err != nil {
		return 0, fmt.Errorf("identity: shard of %s: %w", authority, err)
	}
	_, err = tx.Exec(`INSERT INTO crl(authority, shard, url, touched, signed, number, updated, until, refresh, ends) VALUES ($1, $2, $3, 1, 0, 0, 0, $4, 0, 0)`,
		authority, shard, listURL(s.cfg.PublicURL, authority, shard), s.unsignedUntil())
	return shard, err
}

// unsignedUntil is up to when a new list counts as one that was signed now, in ms: near it the alarm is raised.
func (s *Service) unsignedUntil() int64 { return store.Millis(s.cfg.Clock.Now().Add(listLife)) }

// listURL is where the list of a shard is, without its ending.
func listURL(public, authority string, shard int64) string {
	return fmt.Sprintf("%s/crl/%s/%d", strings.TrimSuffix(public, "/"), authority, shard)
}

const (
	completeEnding = ".crl"
	deltaEnding    = ".delta.crl"
)
