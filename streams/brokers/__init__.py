"""Brokers that `waybill dev` and the tests start themselves."""
