"""What an application or an adapter tests itself with."""
