// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"cmp"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/webhook"
)

// Roles of contacts. Authority is a market surveillance authority (CRA Article 13(23)); internal are the maker's own people.
var Roles = []string{"customer", "distributor", "importer", "authority", "sales", "internal"}

// Channels by which a contact is reached.
const (
	Mail    = "mail"
	Webhook = "webhook"
)

const (
	maxContacts = 10_000 // of a tenant
	maxHoldings = 100    // of a contact
	maxName     = 120    // characters
	maxAddress  = 254    // bytes of a mail address (RFC 5321, 4.5.3.1.3)
)

// Holding is a product that a contact has; without revision it may be any hardware of it.
type Holding struct {
	Product  string `json:"product" maxLength:"64"`
	Revision string `json:"revision,omitempty" maxLength:"64" doc:"Hardware revision; absent where it is not known: then it counts as every one"`
}

// Person is how a contact is named and reached. It is kept sealed.
type Person struct {
	Name    string `json:"name" maxLength:"120"`
	Address string `json:"address" maxLength:"500" doc:"Mail address, or the https address of a webhook"`
}

// Contact is somebody who is told about products.
type Contact struct {
	ID       string `json:"id" readOnly:"true"`
	Role     string `json:"role" enum:"customer,distributor,importer,authority,sales,internal"`
	Channel  string `json:"channel" enum:"mail,webhook"`
	Language string `json:"language" pattern:"^[a-z]{2}$" doc:"Two letters (ISO 639-1); what is not told in it is told in the language of the campaign"`
	Person
	Products []Holding `json:"products" maxItems:"100"`
	Created  time.Time `json:"created,omitzero" readOnly:"true"`
	Changed  time.Time `json:"changed,omitzero" readOnly:"true"`
	Erased   time.Time `json:"erased,omitzero" readOnly:"true" doc:"Since when name and address are destroyed"`
	Secret   string    `json:"secret,omitempty" readOnly:"true" doc:"Of a webhook, to check signatures with; shown this once"`

	tenant, hash   string
	sealed, secret []byte
}

var language = regexp.MustCompile(`^[a-z]{2}$`)

// check refuses a contact that could never be told. private lets webhooks reach the inside.
func (c *Contact) check(private bool) error {
	c.Name, c.Address = strings.TrimSpace(c.Name), strings.TrimSpace(c.Address)
	switch {
	case !slices.Contains(Roles, c.Role):
		return problem.Invalid("A contact is a %s.", strings.Join(Roles, ", ")).At("role")
	case !language.MatchString(c.Language):
		return problem.Invalid("%.20q is no language of two letters, such as en or de.", c.Language).At("language")
	case !line(c.Name, maxName):
		return problem.Invalid("A name is one line of 1 to %d characters.", maxName).At("name")
	case len(c.Products) == 0 || len(c.Products) > maxHoldings:
		return problem.Invalid("A contact has 1 to %d products.", maxHoldings).At("products")
	}
	slices.SortFunc(c.Products, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.Revision, b.Revision))
	})
	c.Products = slices.Compact(c.Products)
	switch c.Channel {
	case Webhook:
		return webhook.Check(c.Address, RuleAddress, private)
	case Mail:
		return checkMail(c.Address)
	}
	return problem.Invalid("A contact is reached by mail or webhook.").At("channel")
}

func checkMail(address string) error {
	a, err := mail.ParseAddress(address)
	if err != nil || a.Address != address || len(address) > maxAddress || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return problem.Invalid("%.60q is not one plain mail address.", address).At("address").Because(err)
	}
	return nil
}

// line says whether s is one line of 1 to most characters that can be shown as it is.
func line(s string, most int) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
