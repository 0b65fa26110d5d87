// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/webhook"
)

// Rules of hooks.
const (
	RuleHookDenied = "enroll.hook"             // the hook said no
	RuleHookDown   = "enroll.hook-unavailable" // the hook gave no answer, and without one nobody gets in
)

// Bounds of a hook. A device waits for two of them at most, well below the half minute after which an agent gives up, and the
// minute after which the door does.
const (
	DefaultPatience = 3 * time.Second
	MaxPatience     = 10 * time.Second
	maxHookAnswer   = 16 << 10
)

// Hook is asked before a unit is made or a device gets its certificate: one for a product, or with Product empty for
// every product of the tenant. Where there are both, both are asked, the tenant's first, and each must let the device in:
// what the tenant refuses is refused, and whoever answers for one product can only refuse more. Open speaks for the hook
// itself: an open one that gives no answer does not open the other.
type Hook struct {
	Tenant   string    `json:"-"`
	Product  string    `json:"product,omitempty"`
	URL      string    `json:"url"`
	Patience int64     `json:"patience_ms" doc:"How long it may take to answer"`
	Open     bool      `json:"open" doc:"Let devices in when the hook gives no answer; otherwise nobody gets in then"`
	Actor    string    `json:"actor,omitempty"`
	Created  time.Time `json:"created"`
	Asked    int64     `json:"asked"`
	Denied   int64     `json:"denied"`
	Failed   int64     `json:"failed" doc:"How often it gave no answer"`
	Fault    string    `json:"fault,omitempty" doc:"Why it last gave none"`

	secret []byte // sealed
}

// What a hook is asked about.
const (
	AskProvision = "provision" // a line station wants an identity for a unit, or has made one offline
	AskEnrol     = "enrol"     // a device wants its certificate of operation
	AskRegister  = "register"  // a device of a trusted CA, or with a token, wants to be registered
)

// Question is what a hook is asked, as JSON. Its headers are those of Standard Webhooks (webhook-id,
// webhook-timestamp, webhook-signature): an id is used once, so that a hook can tell a replay.
type Question struct {
	ID      string `json:"id"`
	Time    int64  `json:"time"` // ms
	Kind    string `json:"kind"`
	Tenant  string `json:"tenant"`
	Product string `json:"product"`
	Batch   string `json:"batch,omitempty"`
	Station string `json:"station,omitempty"`
	Device  string `json:"device,omitempty"`
	Serial  string `json:"serial"`
	Key     string `json:"key"` // hex SHA-256 of the public key
}

// Answer is what a hook says with status 200. ID repeats that of the question, so that no recorded answer passes.
type Answer struct {
	ID     string `json:"id"`
	Allow  bool   `json:"allow"`
	Reason string `json:"reason,omitempty"`
}

// SetHook sets the hook of a product, or of the tenant, and returns its secret, which is shown this once. Setting it
// again makes another secret.
func (s *Service) SetHook(ctx context.Context, h Hook, actor string) (secret string, err error) {
	if s.cfg.Keys == nil {
		return "", problem.Unavailable("This platform has no keys to seal a secret with.")
	}
	if err := s.checkHook(&h); err != nil {
		return "", err
	}
	raw := webhook.NewSecret()
	if h.secret, err = s.cfg.Keys.Wrap(hookPurpose(h), raw); err != nil {
		return "", err
	}
	h.Actor, h.Created = actor, s.now()
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := putHook(tx, h); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: h.Tenant, Actor: actor, Kind: "hook.set", Subject: hookSubject(h), Data: map[string]any{"url": h.URL, "product": h.Product, "open": h.Open}})
	})
	return raw.Text(), err
}

func hookPurpose(h Hook) string { return "enroll.hook/" + h.Tenant + "/" + h.Product }

func hookSubject(h Hook) string {
	if h.Product != "" {
		return h.Product
	}
	return h.Tenant
}

func (s *Service) checkHook(h *Hook) error {
	if err := webhook.Check(h.URL, "enroll.hook-address", s.cfg.PrivateHooks); err != nil {
		return err
	}
	if h.Patience == 0 {
		h.Patience = DefaultPatience.Milliseconds()
	}
	if h.Patience < 100 || h.Patience > MaxPatience.Milliseconds() {
		return problem.Invalid("A hook has 100 to %d milliseconds to answer.", MaxPatience.Milliseconds()).At("patience_ms")
	}
	return nil
}

// DropHook removes the hook of a product, or of the tenant.
func (s *Service) DropHook(ctx context.Context, tenant, product, actor string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`DELETE FROM hook WHERE tenant = $1 AND product = $2`, tenant, product)
		if err == nil && n == 0 {
			err = problem.NotFound("There is no such hook.")
		}
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "hook.dropped", Subject: hookSubject(Hook{Tenant: tenant, Product: product}), Data: map[string]any{"product": product}})
	})
}

// ask asks the hook of the tenant, and then that of the product, whether the request may go on. Without a hook it may. There
// is no second try: whoever asks us tries again.
func (s *Service) ask(ctx context.Context, q Question) error {
	hooks, err := s.hooksAbout(ctx, q.Tenant, q.Product)
	if err != nil || len(hooks) == 0 {
		return err
	}
	if q.Kind != AskProvision {
		if !s.asking.enter(q.Tenant, q.Kind) {
			return &later{problem.Limited("Too many devices wait for the manufacturer's own system at this moment."), notYet + jitter(q.Key, notYet)}
		}
		defer s.asking.leave(q.Tenant, q.Kind)
	}
	for _, h := range hooks {
		if err := s.askOne(ctx, h, q); err != nil {
			return err
		}
	}
	return nil
}

// askOne asks one hook, under an id of its own.
func (s *Service) askOne(ctx context.Context, h Hook, q Question) error {
	q.ID, q.Time = store.NewID("msg"), store.Millis(s.now())
	a, fault := s.consult(ctx, h, q)
	switch {
	case fault == nil && a.Allow:
		return s.tally(ctx, h, 0, 0, "")
	case fault == nil:
		return errors.Join(s.tally(ctx, h, 1, 0, ""), problem.Forbidden(RuleHookDenied, "The manufacturer's own system refuses %s.", q.Serial).Hint("It says: %.200s", a.Reason))
	}
	s.cfg.Log.WarnContext(ctx, "a hook gave no answer", slog.String("tenant", h.Tenant), slog.String("url", h.URL), slog.Any("error", fault))
	if err := s.tally(ctx, h, 0, 1, fault.Error()); err != nil || h.Open {
		return err
	}
	return problem.Forbidden(RuleHookDown, "The manufacturer's own system gives no answer, and nobody gets in without one.").Hint("Try again later.").Because(fault)
}

// maxAsking is how many devices of one tenant may wait for its hooks at a time, and as many again that want to be registered.
// The first hold a place in work meanwhile, and those are for all tenants; the others hold a connection, and any number of them
// may come. Line stations are not counted: the tenant has admitted each, and turning away a unit stops a line.
const maxAsking = defaultWork / 4

// asking counts them, so that the slow hook of one tenant does not stop the devices of the others.
type asking struct {
	mu sync.Mutex // guards n
	n  map[[2]string]int
}

func (a *asking) enter(tenant, kind string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := [2]string{tenant, kind}
	if a.n[key] >= maxAsking {
		return false
	}
	if a.n == nil {
		a.n = map[[2]string]int{}
	}
	a.n[key]++
	return true
}

func (a *asking) leave(tenant, kind string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := [2]string{tenant, kind}
	if a.n[key]--; a.n[key] == 0 {
		delete(a.n, key)
	}
}

// consult asks once.
func (s *Service) consult(ctx context.Context, h Hook, q Question) (a Answer, err error) {
	secret, err := s.cfg.Keys.Unwrap(hookPurpose(h), h.secret)
	if err != nil {
		return a, err
	}
	b, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(h.Patience)*time.Millisecond)
	defer cancel()
	req, err := webhook.Secret(secret).Request(ctx, h.URL, q.ID, time.UnixMilli(q.Time), b)
	if err != nil {
		return a, err
	}
	resp, err := s.hooks.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxHookAnswer+1))
	switch {
	case err != nil:
		return a, err
	case resp.StatusCode != http.StatusOK:
		return a, fmt.Errorf("status %d", resp.StatusCode)
	case len(text) > maxHookAnswer:
		return a, fmt.Errorf("an answer of more than %d bytes", maxHookAnswer)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("the answer is not the JSON that it should be: %w", err)
	}
	if a.ID != q.ID {
		return Answer{}, fmt.Errorf("the answer is to %.40q, not to %s", a.ID, q.ID)
	}
	return a, nil
}

// tally counts what the hook said.
func (s *Service) tally(ctx context.Context, h Hook, denied, failed int, fault string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE hook SET asked = asked + 1, denied = denied + $1, failed = failed + $2, fault = CASE WHEN $3 = '' THEN fault ELSE $3 END
			WHERE tenant = $4 AND product = $5`, denied, failed, fault, h.Tenant, h.Product)
		return err
	})
}
