// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/webhook"
)

// The bounds of PagerDuty's Events API v2.
const (
	maxSummary = 1024
	maxDedup   = 255
)

// pagerEvent is an event as PagerDuty's Events API v2 takes it (https://developer.pagerduty.com/docs/events-api-v2).
type pagerEvent struct {
	RoutingKey string       `json:"routing_key"`
	Action     string       `json:"event_action"`
	Dedup      string       `json:"dedup_key"`
	Client     string       `json:"client"`
	ClientURL  string       `json:"client_url,omitempty"`
	Payload    pagerPayload `json:"payload"`
	Links      []pagerLink  `json:"links,omitempty"`
}

type pagerPayload struct {
	Summary   string       `json:"summary"`
	Source    string       `json:"source"`
	Severity  Severity     `json:"severity"`
	Timestamp time.Time    `json:"timestamp"`
	Component string       `json:"component,omitempty"`
	Class     string       `json:"class"`
	Details   pagerDetails `json:"custom_details"`
}

type pagerDetails struct {
	Text  string          `json:"text,omitempty"`
	Facts json.RawMessage `json:"facts,omitempty"`
}

type pagerLink struct {
	Href string `json:"href"`
	Text string `json:"text"`
}

// actions are what the phases of a thread are called there.
var actions = map[Phase]string{Begun: "trigger", Taken: "acknowledge", Over: "resolve"}

// event is a delivery for a pager. What has no thread is an incident of its own, one for all attempts.
func (d Delivery) event(source, console string) pagerEvent {
	e := pagerEvent{Action: actions[d.notice.Phase], Dedup: shorten(cmp.Or(d.notice.Thread, d.ID), maxDedup-len("…")), Client: "OpenThings", ClientURL: console,
		Payload: pagerPayload{Summary: shorten(d.Title, maxSummary-len("…")), Source: source, Severity: d.notice.Severity, Timestamp: d.At.UTC(), Component: d.Subject, Class: d.Topic,
			Details: pagerDetails{d.notice.Text, json.RawMessage(d.data)}}}
	if d.notice.Link != "" {
		e.Links = []pagerLink{{d.notice.Link, d.Title}}
	}
	return e
}

// page tells a pager once.
func (s *Service) page(ctx context.Context, e Endpoint, d Delivery) error {
	key, err := s.cfg.Keys.Unwrap(credentialOf(e), e.credential)
	if err != nil {
		return err
	}
	event := d.event(s.host(), s.cfg.URL)
	event.RoutingKey = string(key)
	body, err := json.Marshal(event)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.Address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "OpenThings")
	said, err := webhook.Do(s.client, req)
	if refused := new(*webhook.Refused); errors.As(err, refused) && (*refused).Code == http.StatusBadRequest {
		return &rejectedError{"status 400" + strings.ReplaceAll(complaint(said.Body), string(key), "[key]")}
	}
	return err
}

// complaint is what a pager says about an event that it does not take, on one line and after a colon; "" if it says nothing.
func complaint(said []byte) string {
	var answer struct {
		Message string   `json:"message"`
		Errors  []string `json:"errors"`
	}
	if json.Unmarshal(said, &answer) != nil {
		return ""
	}
	words := strings.TrimSpace(plain(strings.Join(append([]string{answer.Message}, answer.Errors...), " "), 200))
	if words == "" {
		return ""
	}
	return ": " + words
}

// host is the name of this platform in what it sends.
func (s *Service) host() string {
	u, err := url.Parse(s.cfg.URL)
	if err != nil {
		return "openthings"
	}
	return cmp.Or(u.Hostname(), "openthings")
}
