// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"crypto/x509"
	"errors"
)

// How Config.Admit may refuse, for what can only be done once the peer has proven to hold its key. Its error wraps one
// of them; with ErrSpent it also returns the peer.
var (
	ErrUnknown = errors.New("the register does not know this certificate")
	ErrSpent   = errors.New("the successor of this certificate has been used")
)

// admit asks Admit and, on the HTTPS door, Vouch about a certificate that Admit does not know.
func (g *Gateway) admit(ctx context.Context, l *link, chain []*x509.Certificate) (Peer, error) {
	p, err := g.cfg.Admit(ctx, chain[0])
	if g.cfg.Vouch != nil && l.door == doorHTTPS && errors.Is(err, ErrUnknown) {
		p, err = g.cfg.Vouch(ctx, chain)
	}
	p.Cert, p.From = chain[0], l.RemoteAddr().String()
	return p, err
}

// proven does what waited for the peer's proof. Who shows a spent certificate is refused only here, since who copied
// one without its key must not be able to accuse the device; a stranger gets its name.
func (g *Gateway) proven(ctx context.Context, l *link) error {
	if l.spent != nil {
		l.told.Do(func() { g.cfg.Spent(l.peer) })
		return l.spent
	}
	if !l.peer.Stranger {
		return nil
	}
	p, err := g.cfg.Introduce(ctx, l.chain, l.peer.From)
	if err != nil {
		return err
	}
	p.Cert, p.From = l.chain[0], l.peer.From
	l.peer = p
	return nil
}
