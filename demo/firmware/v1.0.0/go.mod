module github.com/openthings-platform/openthings/demo/firmware/lamp

go 1.26

require golang.org/x/net v0.10.0

require golang.org/x/text v0.9.0 // indirect
