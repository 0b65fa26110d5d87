// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"crypto/x509"
	"net"
	"net/mail"
	"regexp"
	"slices"
	"strconv"
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
	Pager   Kind = "pager"  // PagerDuty Events API v2, which other tools take as well
	Syslog  Kind = "syslog" // RFC 5424 over TLS (RFC 5425)
)

// RuleAddress refuses an endpoint with an address of the inside.
const RuleAddress = "notify.address"

// Bounds.
const (
	maxEndpoints = 50   // of one tenant
	maxTopics    = 20   // of one endpoint
	maxOpen      = 1000 // deliveries that wait for one endpoint
	maxText      = 2000 // bytes of a title or text
	maxData      = 64 << 10
	maxSecret    = 2000     // bytes of a routing key or of a header's value
	maxAuthority = 32 << 10 // bytes of PEM
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

	Header    string `json:"header,omitempty" doc:"Name of a header that each request of the webhook carries; its value is kept sealed"`
	Authority string `json:"authority,omitempty" doc:"CA certificates (PEM) that a syslog receiver's is checked against; none: those of the machine"`

	// Credential is what a new endpoint is added with: a pager's routing key, or the value of Header. It is never read back.
	Credential string `json:"-"`

	secret     []byte // sealed: what a webhook's requests are signed with
	credential []byte // sealed: Credential
}

// Severity says how bad something is, in the words of pagers.
type Severity string

// The severities, the worst first. What says none is a Warning.
const (
	Critical Severity = "critical"
	Grave    Severity = "error"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// Phase says what a notice means for its thread.
type Phase string

// The phases of a thread.
const (
	Begun Phase = ""
	Taken Phase = "taken" // a person looks after it
	Over  Phase = "over"
)

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

	Severity Severity // empty: Warning
	// Thread joins notices about the same thing from its start to its end, which are one incident of a pager. Empty: nothing
	// more is told of it.
	Thread string
	Phase  Phase
}

// State says what became of a delivery.
type State string

// The states of a delivery.
const (
	Open   State = "open"
	Done   State = "done"
	Failed State = "failed"
	Moot   State = "moot" // what it told was over before it could be delivered
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
// the first. A pager is tried again sooner, and no longer than a day: it exists to wake somebody now.
var waits = []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

var pagerWaits = []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 3 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	2 * time.Hour, 6 * time.Hour, 12 * time.Hour}

func (k Kind) waits() []time.Duration {
	if k == Pager {
		return pagerWaits
	}
	return waits
}

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
	if err := e.checkExtras(); err != nil {
		return err
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
	case Pager:
		if e.Credential == "" {
			return problem.Invalid("A pager needs its routing key.").At("credential").Hint("PagerDuty calls it the integration key of an Events API v2 integration.")
		}
		return webhook.Check(e.Address, RuleAddress, private)
	case Syslog:
		host, port, err := net.SplitHostPort(e.Address)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return problem.Invalid("A syslog receiver is named as siem.example:6514.").At("address").Because(err)
		}
		return webhook.CheckHost(host, RuleAddress, private)
	}
	return problem.Invalid("An endpoint is a webhook, a mail address, a pager or a syslog receiver.").At("kind")
}

// checkExtras refuses what an endpoint of its kind has no use for, and what could change the meaning of a request.
func (e *Endpoint) checkExtras() error {
	e.Header, e.Authority = strings.TrimSpace(e.Header), strings.TrimSpace(e.Authority)
	switch {
	case e.Header != "" && e.Kind != Webhook:
		return problem.Invalid("Only a webhook has a header of its own.").At("header")
	case e.Header != "" && !headerName.MatchString(e.Header):
		return problem.Invalid("%q is not the name of a header.", plain(e.Header, 64)).At("header")
	case e.Header != "" && ours[strings.ToLower(e.Header)]:
		return problem.Invalid("The header %s is set by the platform.", e.Header).At("header")
	case (e.Header == "") != (e.Credential == "") && e.Kind == Webhook:
		return problem.Invalid("A header has a name and a value.").At("header")
	case e.Credential != "" && e.Kind != Webhook && e.Kind != Pager:
		return problem.Invalid("Only a pager has a key, and only the header of a webhook a value.").At("credential")
	case len(e.Credential) > maxSecret || strings.ContainsFunc(e.Credential, func(r rune) bool { return r < ' ' || r > '~' }):
		return problem.Invalid("A key or the value of a header is one line of at most %d plain characters.", maxSecret).At("credential")
	case e.Authority != "" && e.Kind != Syslog:
		return problem.Invalid("Only a syslog receiver has certificates of its own.").At("authority")
	case len(e.Authority) > maxAuthority || e.Authority != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(e.Authority)):
		return problem.Invalid("The CA certificates are PEM, at most %d bytes.", maxAuthority).At("authority")
	}
	return nil
}

// headerName is a token of RFC 9110, section 5.6.2.
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")

// ours are the headers that say what a request is and how long, and those that its signature stands in.
var ours = map[string]bool{"host": true, "content-type": true, "content-length": true, "content-encoding": true, "transfer-encoding": true, "connection": true, "te": true, "trailer": true,
	"upgrade": true, "expect": true, "user-agent": true, "webhook-id": true, "webhook-timestamp": true, "webhook-signature": true}

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
