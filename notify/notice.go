// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/webhook"
)

// Kind is how an endpoint is told.
type Kind string

// The kinds of endpoints.
const (
	Webhook Kind = "webhook"
	Mail    Kind = "mail"
)

// RuleAddress refuses a webhook to an address of the inside.
const RuleAddress = "notify.address"

// Bounds.
const (
	maxEndpoints = 50   // of one tenant
	maxTopics    = 20   // of one endpoint
	maxOpen      = 1000 // deliveries that wait for one endpoint
	maxText      = 2000 // bytes of a title or text
	maxData      = 64 << 10
)

// Endpoint is somebody who is told.
type Endpoint struct {
	ID      string    `json:"id"`
	Tenant  string    `json:"-"`
	Name    string    `json:"name"`
	Kind    Kind      `json:"kind"`
	Address string    `json:"address"`
	Topics  []string  `json:"topics" doc:"What it is told of: alarm.raised, alarm.* or *"`
	Actor   string    `json:"actor"`
	Created time.Time `json:"created"`
	Off     string    `json:"off,omitempty" doc:"Why nothing is delivered to it any more"`
	Faults  int64     `json:"faults" doc:"Attempts that failed since it last took something"`
	Fault   string    `json:"fault,omitempty" doc:"Why the last attempt failed"`
	Reached time.Time `json:"reached,omitzero" doc:"When it last took something"`

	secret []byte // sealed
}

// Topic is something that may be told.
type Topic struct {
	Name string `json:"name"`
	Text string `json:"text" doc:"When it is told"`
}

// Notice is something that happened.
type Notice struct {
	Tenant  string
	Topic   string // noun.verb
	Subject string // the id that it is about
	Title   string // one line for people
	Text    string // for people, plain
	Link    string // path in the console, "" if there is no page
	Data    any    // for programs, as JSON
	Key     string // the same key is told once; empty: each time
}

// State says what became of a delivery.
type State string

// The states of a delivery.
const (
	Open   State = "open"
	Done   State = "done"
	Failed State = "failed"
)

// Delivery is one notice on its way to one endpoint.
type Delivery struct {
	ID       string    `json:"id"`
	Tenant   string    `json:"-"`
	Endpoint string    `json:"endpoint"`
	Topic    string    `json:"topic"`
	Subject  string    `json:"subject"`
	Title    string    `json:"title"`
	At       time.Time `json:"at" doc:"When it happened"`
	State    State     `json:"state"`
	Attempts int64     `json:"attempts"`
	Next     time.Time `json:"next,omitzero" doc:"When it is tried again"`
	Ended    time.Time `json:"ended,omitzero"`
	Answer   string    `json:"answer,omitempty" doc:"What the endpoint said to the last attempt"`

	notice Notice
	data   string
}

// waits are the pauses after each attempt, as Standard Webhooks recommend: the last attempt is about three days after
// the first.
var waits = []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

// rest is how long an endpoint is left alone after that many faults in a row, whatever else waits for it.
func rest(faults int64) time.Duration { return min(5*time.Second<<min(faults-1, 10), 5*time.Minute) }

// listens says whether one of the patterns covers a topic.
func listens(patterns []string, topic string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			return strings.HasPrefix(topic, prefix)
		}
		return p == topic
	})
}

// check refuses an endpoint that could never be told.
func (e *Endpoint) check(topics []Topic, private, mailer bool) error {
	e.Name, e.Address = strings.TrimSpace(e.Name), strings.TrimSpace(e.Address)
	if e.Name == "" || len(e.Name) > 100 {
		return problem.Invalid("An endpoint has a name of 1 to 100 characters.").At("name")
	}
	if len(e.Topics) == 0 || len(e.Topics) > maxTopics {
		return problem.Invalid("An endpoint listens to 1 to %d topics.", maxTopics).At("topics")
	}
	for _, p := range e.Topics {
		if !slices.ContainsFunc(topics, func(t Topic) bool { return listens([]string{p}, t.Name) }) {
			return problem.Invalid("Nothing is ever told of %q.", p).At("topics").Hint("Known are: %s. The last part may be *.", known(topics))
		}
	}
	switch e.Kind {
	case Webhook:
		return webhook.Check(e.Address, RuleAddress, private)
	case Mail:
		a, err := mail.ParseAddress(e.Address)
		if err != nil || a.Address != e.Address || len(e.Address) > 254 || strings.ContainsFunc(e.Address, func(r rune) bool { return r < ' ' || r > '~' }) {
			return problem.Invalid("%q is not one plain mail address.", e.Address).At("address").Because(err)
		}
		if !mailer {
			return problem.Precondition("This platform knows no mail server.").At("kind").Hint("The administrator of the host names one: openthings up --mail.")
		}
		return nil
	}
	return problem.Invalid("An endpoint is a webhook or a mail address.").At("kind")
}

func known(topics []Topic) string {
	var names []string
	for _, t := range topics {
		names = append(names, t.Name)
	}
	return strings.Join(names, ", ")
}

// plain makes one line of text that is fit for a header or a title.
func plain(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
	return shorten(s, most)
}

func shorten(s string, most int) string {
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
