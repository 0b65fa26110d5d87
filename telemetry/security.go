// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"crypto"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// ChainBroken is the topic of the event that announces a broken chain of security events, on the platform's handle.
const ChainBroken = "device.chain-broken"

// How a chain of security events can be broken.
const (
	breakGap        = "gap"        // links are missing
	breakFork       = "fork"       // there are two versions of one link
	breakLink       = "link"       // a link does not follow on the one before it
	breakCheckpoint = "checkpoint" // a checkpoint is not signed by the device's key over the chain as it is here
)

// chainGrace is how long a link may wait for the one before it, which may be on its way to its handler once more.
const chainGrace = time.Minute

// maxBreaks bounds the breaks that are kept of a device: one that writes nothing but nonsense is known by then.
const maxBreaks = 256

// SecurityEvent is one link of a device's chain.
type SecurityEvent struct {
	ID       string          `json:"id"`
	Seq      uint64          `json:"seq" doc:"Number in the chain; two events of one number are a fork"`
	Kind     string          `json:"kind" doc:"boot, login, config, update, tamper, key, clock, baseline, checkpoint, or the maker's own"`
	At       time.Time       `json:"at" doc:"When it happened by the device's clock; when it was received if that clock cannot be right"`
	Received time.Time       `json:"received"`
	Boot     uint64          `json:"boot" doc:"Number of the device's start"`
	Detail   string          `json:"detail,omitempty" doc:"In the device's words"`
	Data     json.RawMessage `json:"data,omitempty"`
	Prev     string          `json:"prev,omitempty" doc:"SHA-256 of the event before, byte for byte as the device sent it"`
	Hash     string          `json:"hash" doc:"SHA-256 of this one"`
}

// ChainBreak is a place where the chain is broken, or was.
type ChainBreak struct {
	Kind   string     `json:"kind" enum:"gap,fork,link,checkpoint"`
	From   uint64     `json:"from"`
	To     uint64     `json:"to" doc:"Included"`
	At     time.Time  `json:"at" doc:"When it was found"`
	Healed *time.Time `json:"healed,omitempty" doc:"When what was missing arrived"`
}

// Chain is how a device's chain of security events stands.
type Chain struct {
	Head    uint64       `json:"head" doc:"Number of the last event; 0: the device has told of none"`
	Since   *time.Time   `json:"since,omitempty" doc:"When the first event was received"`
	Whole   bool         `json:"whole" doc:"Nothing is missing, altered or there in two versions"`
	Signed  uint64       `json:"signed" doc:"Number of the newest checkpoint under the device's key that fits; 0: none"`
	Checked *time.Time   `json:"checked,omitempty" doc:"When that was received"`
	Breaks  []ChainBreak `json:"breaks" doc:"The newest first"`
}

// chained is a security event with the bytes that its digest is over.
type chained struct {
	wire.SecurityEvent
	id           string
	at, received int64
	body         []byte
}

func (l chained) hash() string { return wire.Digest(l.body) }

// keepSecurity takes a security event to its place in the device's chain and says what that shows. It is the handler of
// event/security.*: a link that comes twice changes nothing.
func (s *Service) keepSecurity(ctx context.Context, r gateway.Record) error {
	e, err := wire.ParseSecurityEvent(r.Body)
	if err == nil && strings.TrimPrefix(r.Topic, wire.SecurityPrefix) != e.Kind {
		err = errors.New("the kind is not that of the topic")
	}
	if err != nil {
		if werr := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			return countRefused(tx, r.Tenant, r.Device, refusal{1, r.At, err.Error()})
		}); werr != nil {
			return werr
		}
		return problem.Invalid("The security event cannot be read: %s.", err)
	}
	key, err := s.subject(ctx, r.Tenant, r.Device)
	if errors.Is(err, seal.ErrDestroyed) {
		return nil
	}
	if err != nil {
		return err
	}
	l := chained{SecurityEvent: e, id: store.NewID("sec"), at: believable(e.TS, r.At), received: r.At, body: r.Body}
	if err := s.join(ctx, key, r.Tenant, r.Device, l); err != nil {
		return err
	}
	return s.tellBreaks(ctx, r.Tenant, r.Device)
}

var errEarly = errors.New("the security event before this one is not here yet")

// join puts a link into the chain, unless it is there.
func (s *Service) join(ctx context.Context, key cipher.AEAD, tenant, device string, l chained) error {
	c, err := readChain(ctx, s.cfg.DB, tenant, device)
	if err != nil {
		return err
	}
	around, err := s.links(ctx, key, tenant, device, l.Seq-1, l.Seq+1)
	if err != nil {
		return err
	}
	at := func(seq uint64) []chained {
		return slices.DeleteFunc(slices.Clone(around), func(x chained) bool { return x.Seq != seq })
	}
	same := at(l.Seq)
	if slices.ContainsFunc(same, func(x chained) bool { return x.hash() == l.hash() }) {
		return nil
	}
	before, after := at(l.Seq-1), at(l.Seq+1)
	now := store.Millis(s.cfg.Clock.Now())
	if l.Seq > c.head+1 && now-l.received < chainGrace.Milliseconds() {
		return errEarly
	}
	var found []breakRow
	broken := func(kind string, lo, hi uint64) {
		found = append(found, breakRow{id: store.NewID("brk"), kind: kind, lo: lo, hi: hi, at: now})
	}
	switch {
	case l.Seq > c.head+1:
		broken(breakGap, c.head+1, l.Seq-1)
	case len(same) > 0:
		broken(breakFork, l.Seq, l.Seq)
	case len(before) > 0 && !slices.ContainsFunc(before, func(x chained) bool { return x.hash() == l.Prev }):
		broken(breakLink, l.Seq, l.Seq)
	}
	if len(same) == 0 && len(after) > 0 && !slices.ContainsFunc(after, func(x chained) bool { return x.Prev == l.hash() }) {
		broken(breakLink, l.Seq+1, l.Seq+1)
	}
	signed := false
	if l.Signed != nil {
		if signed, err = s.signedBy(ctx, tenant, device, l); err != nil {
			return err
		}
		if !signed {
			broken(breakCheckpoint, l.Seq, l.Seq)
		}
	}
	breaks, err := readBreaks(ctx, s.cfg.DB, tenant, device, maxBreaks+1)
	if err != nil {
		return err
	}
	if len(same) == 0 {
		found = append(found, filled(breaks, l.Seq, now)...)
	}
	if c.rev == 0 {
		c.since = l.received
	}
	if c.head = max(c.head, l.Seq); signed && l.Seq > c.checked {
		c.checked, c.checkedAt = l.Seq, l.received
	}
	row := securityRow{tenant: tenant, device: device, seq: l.Seq, id: l.id, at: l.at, received: l.received, kind: l.Kind}
	row.body = key.Seal(nil, nil, l.body, row.bind())
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return putLink(tx, row, c, found, maxBreaks-len(breaks)) })
}

// filled returns what becomes of the gaps when the link that is numbered seq arrives.
func filled(breaks []breakRow, seq uint64, now int64) (changed []breakRow) {
	for _, b := range breaks {
		if b.kind != breakGap || b.healed != 0 || seq < b.lo || seq > b.hi {
			continue
		}
		switch {
		case b.lo == b.hi:
			b.healed = now
		case seq == b.lo:
			b.lo++
		case seq == b.hi:
			b.hi--
		default:
			rest := b
			rest.id, rest.lo = store.NewID("brk"), seq+1
			changed = append(changed, rest)
			b.hi = seq - 1
		}
		return append(changed, b)
	}
	return nil
}

// signedBy says whether a checkpoint is the device's own, over the chain as it is here. What its key cannot be found for is
// not: a device without a certificate of birth has nothing to sign with.
func (s *Service) signedBy(ctx context.Context, tenant, device string, l chained) (bool, error) {
	pub, err := s.birthKey(ctx, tenant, device)
	if problem.Is(err, problem.KindNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var state wire.SecurityState
	err = l.Signed.Open(pub, &state)
	return err == nil && state.Device == device && state.Seq == l.Seq-1 && state.Hash == l.Prev, nil
}

func (s *Service) birthKey(ctx context.Context, tenant, device string) (crypto.PublicKey, error) {
	switch {
	case s.cfg.BirthKey != nil:
		return s.cfg.BirthKey(ctx, tenant, device)
	case s.cfg.Identity != nil:
		return s.cfg.Identity.IDevIDKey(ctx, tenant, device)
	}
	return nil, problem.NotFound("Nobody knows the device's key.")
}

// tellBreaks announces the breaks that nobody was told of. The two handles may be two databases: a crash between them
// announces once more.
func (s *Service) tellBreaks(ctx context.Context, tenant, device string) error {
	breaks, err := readBreaks(ctx, s.cfg.DB, tenant, device, maxBreaks)
	if err != nil {
		return err
	}
	breaks = slices.DeleteFunc(breaks, func(b breakRow) bool { return b.told })
	if len(breaks) == 0 {
		return nil
	}
	err = s.cfg.Platform.Write(ctx, func(tx *store.Tx) error {
		for _, b := range breaks {
			if err := s.cfg.Platform.Emit(tx, ChainBroken, tenant, device, b.out()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		for _, b := range breaks {
			if _, err := tx.Exec(`UPDATE telemetry_chain_break SET told = 1 WHERE tenant = $1 AND device = $2 AND id = $3`, tenant, device, b.id); err != nil {
				return err
			}
		}
		return nil
	})
}

// links opens the links with numbers in [lo, hi].
func (s *Service) links(ctx context.Context, key cipher.AEAD, tenant, device string, lo, hi uint64) ([]chained, error) {
	rows, err := readLinks(ctx, s.cfg.DB, tenant, device, lo, hi)
	if err != nil {
		return nil, err
	}
	return openLinks(key, rows)
}

func openLinks(key cipher.AEAD, rows []securityRow) ([]chained, error) {
	out := make([]chained, 0, len(rows))
	for _, row := range rows {
		body, err := key.Open(nil, nil, row.body, row.bind())
		if err != nil {
			return nil, fmt.Errorf("telemetry: security event %s of %s: %w", row.id, row.device, err)
		}
		e, err := wire.ParseSecurityEvent(body)
		if err != nil {
			return nil, fmt.Errorf("telemetry: security event %s of %s: %w", row.id, row.device, err)
		}
		out = append(out, chained{SecurityEvent: e, id: row.id, at: row.at, received: row.received, body: body})
	}
	return out, nil
}

// SecurityEvents returns at most n links of a device's chain, the highest number first, starting after the place given
// ("": at the end). A device whose data was erased has none: kind not-found.
func (s *Service) SecurityEvents(ctx context.Context, tenant, device, after string, n int) ([]SecurityEvent, error) {
	key, err := s.readKey(ctx, tenant, device)
	if err != nil {
		return nil, err
	}
	seq, id, err := parsePlace(after)
	if err != nil {
		return nil, err
	}
	rows, err := listLinks(ctx, s.cfg.DB, tenant, device, seq, id, n)
	if err != nil {
		return nil, fmt.Errorf("telemetry: security events: %w", err)
	}
	links, err := openLinks(key, rows)
	out := make([]SecurityEvent, 0, len(links))
	for _, l := range links {
		out = append(out, SecurityEvent{ID: l.id, Seq: l.Seq, Kind: l.Kind, At: store.Time(l.at), Received: store.Time(l.received), Boot: l.Boot,
			Detail: l.Detail, Data: l.Data, Prev: l.Prev, Hash: l.hash()})
	}
	return out, err
}

// place is where an event stands in the list.
func (e SecurityEvent) place() string { return fmt.Sprintf("%d.%s", e.Seq, e.ID) }

func parsePlace(s string) (seq uint64, id string, err error) {
	if s == "" {
		return 1 << 62, "", nil
	}
	if n, err := fmt.Sscanf(s, "%d.%s", &seq, &id); n != 2 || err != nil || seq > 1<<62 {
		return 0, "", problem.Invalid("this is no place in the list").At("page_token")
	}
	return seq, id, nil
}

// Chain returns how a device's chain stands.
func (s *Service) Chain(ctx context.Context, tenant, device string) (Chain, error) {
	out := Chain{Whole: true, Breaks: []ChainBreak{}}
	c, err := readChain(ctx, s.cfg.DB, tenant, device)
	if err != nil || c.rev == 0 {
		return out, err
	}
	since := store.Time(c.since)
	out.Head, out.Since, out.Signed = c.head, &since, c.checked
	if c.checked > 0 {
		at := store.Time(c.checkedAt)
		out.Checked = &at
	}
	breaks, err := readBreaks(ctx, s.cfg.DB, tenant, device, maxBreaks)
	for _, b := range breaks {
		out.Whole = out.Whole && b.healed != 0
		out.Breaks = append(out.Breaks, b.out())
	}
	return out, err
}
