// SPDX-License-Identifier: Apache-2.0

package coap

import "fmt"

// Code says what a message is: a method, or how a request ended. Its first three bits are the class.
type Code byte

// Codes of RFC 7252, RFC 7959 (Continue, Incomplete), RFC 8132 (Conflict) and RFC 8516 (TooMany).
const (
	Empty Code = 0

	GET    Code = 1
	POST   Code = 2
	PUT    Code = 3
	DELETE Code = 4

	Created  Code = 2<<5 | 1
	Deleted  Code = 2<<5 | 2
	Changed  Code = 2<<5 | 4
	Content  Code = 2<<5 | 5
	Continue Code = 2<<5 | 31

	BadRequest         Code = 4<<5 | 0
	Unauthorized       Code = 4<<5 | 1
	BadOption          Code = 4<<5 | 2
	Forbidden          Code = 4<<5 | 3
	NotFound           Code = 4<<5 | 4
	MethodNotAllowed   Code = 4<<5 | 5
	NotAcceptable      Code = 4<<5 | 6
	Incomplete         Code = 4<<5 | 8
	Conflict           Code = 4<<5 | 9
	PreconditionFailed Code = 4<<5 | 12
	TooLarge           Code = 4<<5 | 13
	UnsupportedFormat  Code = 4<<5 | 15
	TooMany            Code = 4<<5 | 29

	InternalError     Code = 5<<5 | 0
	NotImplemented    Code = 5<<5 | 1
	Unavailable       Code = 5<<5 | 3
	ProxyingForbidden Code = 5<<5 | 5
)

// Class is 0 for a request, 2 for success, 4 for a mistake of the client, 5 for one of the server.
func (c Code) Class() byte { return byte(c) >> 5 }

// IsRequest says whether c is a method.
func (c Code) IsRequest() bool { return c.Class() == 0 && c != Empty }

// String is the code as people write it: "4.13".
func (c Code) String() string { return fmt.Sprintf("%d.%02d", c.Class(), byte(c)&31) }
