"""A small shop: an order is booked, a mail is written, a report is kept."""
