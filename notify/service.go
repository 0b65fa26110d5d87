// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/webhook"
)

// Config is what the stage needs.
type Config struct {
	DB    *store.DB // the platform handle
	Keys  *seal.Keys
	Clock clock.Clock // default clock.System
	Log   *slog.Logger
	// PrivateHooks lets webhooks, pagers and syslog reach private and loopback addresses, as the administrator of the host says.
	PrivateHooks bool
	Mailer       *Mailer // nil: there is no mail server
	URL          string  // where people find the console, "https://ot.example:8443"; links of notices begin with it
}

// Service is the stage. Its methods are safe for concurrent use.
type Service struct {
	cfg    Config
	client *http.Client
	dialer *net.Dialer
	topics []Topic       // complete before Work
	wake   chan struct{} // capacity 1
}

// topicTest is told by people who want to see whether it arrives. It reaches its endpoint whatever that listens to.
const topicTest = "notify.test"

// New makes the stage.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, client: webhook.Client(cfg.PrivateHooks), dialer: webhook.Dialer(cfg.PrivateHooks), wake: make(chan struct{}, 1)}
}

// Know adds topics that a stage may tell of. Call it before Work.
func (s *Service) Know(topics ...Topic) { s.topics = append(s.topics, topics...) }

// Topics lists what may be told.
func (s *Service) Topics() []Topic { return slices.Clone(s.topics) }

// Tell tells every endpoint of the tenant that listens to the topic, once the transaction is durable. A topic that no
// stage has made known is a mistake of the program.
func (s *Service) Tell(tx *store.Tx, n Notice) error {
	if !slices.ContainsFunc(s.topics, func(t Topic) bool { return t.Name == n.Topic }) {
		panic("notify: nobody knows the topic " + n.Topic)
	}
	endpoints, err := listEndpoints(tx.Query, n.Tenant)
	if err != nil {
		return err
	}
	if n.Phase == Begun {
		return s.tell(tx, n, slices.DeleteFunc(endpoints, func(e Endpoint) bool { return e.Off != "" || !listens(e.Topics, n.Topic) }))
	}
	heard, err := told(tx, n.Tenant, n.Thread)
	if err != nil {
		return err
	}
	// A pager hears what becomes of what it was told, whatever else it listens to, and nothing of the rest.
	to := slices.DeleteFunc(endpoints, func(e Endpoint) bool {
		return e.Off != "" || e.Kind == Pager && !slices.Contains(heard, e.ID) || e.Kind != Pager && !listens(e.Topics, n.Topic)
	})
	var pagers []string
	for _, e := range to {
		if e.Kind == Pager {
			pagers = append(pagers, e.ID)
		}
	}
	if err := s.overtake(tx, n, pagers); err != nil {
		return err
	}
	return s.tell(tx, n, to)
}

// Settle says that a thread is over, or that a person looks after it, to the pagers that were told of it. What is over is
// delivered to nobody any more. It is for what was told by Call.
func (s *Service) Settle(tx *store.Tx, n Notice) error {
	heard, err := told(tx, n.Tenant, n.Thread)
	if err != nil {
		return err
	}
	if err := s.overtake(tx, n, heard); err != nil {
		return err
	}
	endpoints, err := listEndpoints(tx.Query, n.Tenant)
	if err != nil {
		return err
	}
	return s.tell(tx, n, slices.DeleteFunc(endpoints, func(e Endpoint) bool { return e.Off != "" || e.Kind != Pager || !slices.Contains(heard, e.ID) }))
}

// overtake drops what still waits to tell the endpoints of a thread that is over: told later, it would open it again.
func (s *Service) overtake(tx *store.Tx, n Notice, to []string) error {
	if n.Phase != Over || len(to) == 0 {
		return nil
	}
	return moot(tx, n.Tenant, n.Thread, to, s.cfg.Clock.Now())
}

// Call tells the endpoints with the ids, whatever they listen to, and says how many of them could be told. It is for what is
// meant for one person.
func (s *Service) Call(tx *store.Tx, n Notice, ids []string) (told int, err error) {
	endpoints, err := listEndpoints(tx.Query, n.Tenant)
	if err != nil {
		return 0, err
	}
	to := slices.DeleteFunc(endpoints, func(e Endpoint) bool { return e.Off != "" || !slices.Contains(ids, e.ID) })
	return len(to), s.tell(tx, n, to)
}

// Endpoints are those of the tenant.
func (s *Service) Endpoints(tx *store.Tx, tenant string) ([]Endpoint, error) {
	return listEndpoints(tx.Query, tenant)
}

func (s *Service) tell(tx *store.Tx, n Notice, to []Endpoint) error {
	if len(to) == 0 {
		return nil
	}
	data, err := json.Marshal(n.Data)
	if err != nil || len(data) > maxData {
		return problem.TooLarge("What is told of %s has more than %d bytes or cannot be written as JSON.", n.Topic, maxData).Because(err)
	}
	n.Severity = cmp.Or(n.Severity, Warning)
	n.Title, n.Text = plain(n.Title, maxText/10), shorten(strings.ToValidUTF8(n.Text, "�"), maxText)
	now := s.cfg.Clock.Now()
	id := store.NewID("ntc")
	if n.Key != "" {
		id = "ntc_" + n.Tenant + "_" + n.Key
	}
	if fresh, err := insertNotice(tx, id, n, string(data), now); err != nil || !fresh {
		return err
	}
	for _, e := range to {
		d := Delivery{ID: store.NewID("ndl"), Tenant: n.Tenant, Endpoint: e.ID, State: Open, Next: now}
		full, err := hasOpen(tx, e.ID, maxOpen)
		if err != nil {
			return err
		}
		if full {
			d.State, d.Ended, d.Answer = Failed, now, "too much waits for this endpoint already"
		}
		if err := insertDelivery(tx, id, d); err != nil {
			return err
		}
	}
	tx.After(s.kick)
	return nil
}

func (s *Service) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Add adds an endpoint and returns it with the secret of a webhook, which is shown this once. The credential of a pager or of
// a webhook's header is never shown.
func (s *Service) Add(ctx context.Context, e Endpoint) (Endpoint, string, error) {
	if err := e.check(s.topics, s.cfg.PrivateHooks, s.cfg.Mailer != nil); err != nil {
		return e, "", err
	}
	e.ID, e.Created = store.NewID("nep"), s.cfg.Clock.Now()
	secret := ""
	if e.Kind == Webhook {
		raw := webhook.NewSecret()
		sealed, err := s.cfg.Keys.Wrap(purpose(e), raw)
		if err != nil {
			return e, "", err
		}
		e.secret, secret = sealed, raw.Text()
	}
	if e.Credential != "" {
		sealed, err := s.cfg.Keys.Wrap(credentialOf(e), []byte(e.Credential))
		if err != nil {
			return e, "", err
		}
		e.credential, e.Credential = sealed, ""
	}
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		others, err := listEndpoints(tx.Query, e.Tenant)
		if err != nil {
			return err
		}
		if len(others) >= maxEndpoints {
			return problem.Limited("A tenant has %d endpoints at most.", maxEndpoints)
		}
		if err := insertEndpoint(tx, e); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: e.Tenant, Actor: e.Actor, Kind: "endpoint.added", Subject: e.ID,
			Data: map[string]any{"name": e.Name, "kind": e.Kind, "address": e.Address, "topics": e.Topics, "header": e.Header, "authority": e.Authority != ""}})
	})
	return e, secret, err
}

func purpose(e Endpoint) string { return "notify/" + e.Tenant + "/" + e.ID }

func credentialOf(e Endpoint) string { return purpose(e) + "/credential" }

// Remove removes an endpoint. What still waits for it is on record as failed.
func (s *Service) Remove(ctx context.Context, tenant, id, actor string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		e, err := getEndpoint(tx, tenant, id)
		if err != nil {
			return err
		}
		if err := failOpen(tx, id, "the endpoint was removed", s.cfg.Clock.Now()); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM notify_endpoint WHERE tenant = $1 AND id = $2`, tenant, id); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "endpoint.removed", Subject: id, Data: map[string]any{"name": e.Name, "address": e.Address}})
	})
}

// Resume delivers again to an endpoint that was turned off or rests after a fault.
func (s *Service) Resume(ctx context.Context, tenant, id, actor string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := getEndpoint(tx, tenant, id); err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE notify_endpoint SET off_reason = '', busy_until = 0 WHERE tenant = $1 AND id = $2`, tenant, id); err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE notify_delivery SET next = $2 WHERE endpoint = $1 AND state = 'open'`, id, store.Millis(s.cfg.Clock.Now())); err != nil {
			return err
		}
		tx.After(s.kick)
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "endpoint.resumed", Subject: id})
	})
}

// Test tells one endpoint that somebody wants to know whether it hears.
func (s *Service) Test(ctx context.Context, tenant, id, actor string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		e, err := getEndpoint(tx, tenant, id)
		if err != nil {
			return err
		}
		if e.Off != "" {
			return problem.Conflict("%s is turned off: %s.", e.Name, e.Off).Hint("Resume it first.")
		}
		return s.tell(tx, Notice{Tenant: tenant, Topic: topicTest, Subject: id, Title: "A test of OpenThings", Severity: Info,
			Text: "Somebody asked whether messages of the platform arrive here. They do.", Link: "/notifications", Data: map[string]any{"asked_by": actor}}, []Endpoint{e})
	})
}

// Again tries a failed delivery once more.
func (s *Service) Again(ctx context.Context, tenant, id string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`UPDATE notify_delivery SET state = 'open', attempts = 0, next = $3, ended = 0 WHERE tenant = $1 AND id = $2 AND state = 'failed'
			AND EXISTS (SELECT 1 FROM notify_endpoint e WHERE e.id = notify_delivery.endpoint)`, tenant, id, store.Millis(s.cfg.Clock.Now()))
		if err == nil && n == 0 {
			err = problem.NotFound("There is no failed delivery %s whose endpoint still exists.", plain(id, 64))
		}
		tx.After(s.kick)
		return err
	})
}
