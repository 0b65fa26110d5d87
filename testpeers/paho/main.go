// SPDX-License-Identifier: AGPL-3.0-only

// Command paho is Eclipse Paho's clients for Go, that of 5.0 and that of 3.1.1, as a program: it reads orders from its
// input and writes what the server answered, a JSON object a line. It is a module of its own, so that nothing of Paho
// enters ours. Package testpeers says what the lines mean.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// order is testpeers.MQTTOrder.
type order struct {
	Do        string            `json:"do"`
	ID        string            `json:"id"`
	Clean     bool              `json:"clean"`
	Expiry    uint32            `json:"expiry"`
	KeepAlive uint16            `json:"keepalive"`
	Mute      bool              `json:"mute"`
	Receive   uint16            `json:"receive"`
	Aliases   uint16            `json:"aliases"`
	Size      uint32            `json:"size"`
	Info      bool              `json:"info"`
	Terse     bool              `json:"terse"`
	Auth      string            `json:"auth"`
	Hold      bool              `json:"hold"`
	Will      *will             `json:"will"`
	Topic     string            `json:"topic"`
	Topics    []string          `json:"topics"`
	Payload   string            `json:"payload"`
	Raw       []byte            `json:"raw"`
	QoS       byte              `json:"qos"`
	Retain    bool              `json:"retain"`
	Alias     uint16            `json:"alias"`
	Type      string            `json:"type"`
	Text      bool              `json:"text"`
	User      map[string]string `json:"user"`
	Code      byte              `json:"code"`
}

type will struct {
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
	QoS     byte   `json:"qos"`
	Retain  bool   `json:"retain"`
	Delay   uint32 `json:"delay"`
}

// event is testpeers.MQTTEvent.
type event struct {
	Is      string            `json:"is"`
	Code    int               `json:"code"`
	Codes   []int             `json:"codes,omitempty"`
	Present bool              `json:"present,omitempty"`
	Words   string            `json:"words,omitempty"`
	Topic   string            `json:"topic,omitempty"`
	Payload string            `json:"payload,omitempty"`
	QoS     int               `json:"qos,omitempty"`
	Dup     bool              `json:"dup,omitempty"`
	Props   map[string]string `json:"props,omitempty"`
}

var out = struct {
	sync.Mutex
	*json.Encoder
}{Encoder: json.NewEncoder(os.Stdout)}

func say(e event) {
	out.Lock()
	defer out.Unlock()
	if err := out.Encode(e); err != nil {
		os.Exit(1)
	}
}

// codes are bytes that JSON does not take for base64.
func codes(bs []byte) []int {
	var cs []int
	for _, b := range bs {
		cs = append(cs, int(b))
	}
	return cs
}

const patience = 20 * time.Second // with the server, before an order has failed

// link is what both versions need of the network.
type link struct {
	addr string
	tls  *tls.Config
	conn *tls.Conn // the newest
}

func (l *link) dial() (net.Conn, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", l.addr, l.tls)
	if err != nil {
		return nil, err
	}
	l.conn = conn
	return conn, nil
}

// drop ends the connection without a word.
func (l *link) drop() error { return l.conn.NetConn().Close() }

func main() {
	version := flag.Int("version", 5, "5, or 4 for 3.1.1")
	addr := flag.String("addr", "", "host:port")
	ca := flag.String("ca", "", "the server's anchor")
	cert := flag.String("cert", "", "the device's certificate")
	key := flag.String("key", "", "and its key")
	flag.Parse()
	l, err := newLink(*addr, *ca, *cert, *key)
	if err != nil {
		fmt.Fprintln(os.Stderr, "paho:", err)
		os.Exit(1)
	}
	carryOut := newFive(l).do
	if *version == 4 {
		carryOut = newFour(l).do
	}
	orders := bufio.NewScanner(os.Stdin)
	orders.Buffer(nil, 1<<22)
	for orders.Scan() {
		var o order
		err := json.Unmarshal(orders.Bytes(), &o)
		if err == nil {
			err = carryOut(o)
		}
		if err != nil {
			say(event{Is: "error", Words: err.Error()})
		}
	}
}

func newLink(addr, ca, cert, key string) (*link, error) {
	anchor, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(anchor)
	return &link{addr: addr, tls: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, ServerName: "localhost"}}, nil
}
