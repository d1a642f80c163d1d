"""Cases of brokers that are killed, stopped or full, for adapters with Redis and RabbitMQ."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

import pytest
import redis

from dispatchers import BaseDispatcher, DispatchStatus, ErrorCategory
from dispatchers.testing import tasks
from dispatchers.testing.conformance._tools import answered, eventually
from dispatchers.testing.servers import PrivateServer, RabbitMQServer, RedisServer


class BrokerCases(ABC):
    """What is accepted and answered while a broker ends and begins."""

    @abstractmethod
    def dispatcher_of(self, url: str) -> BaseDispatcher:
        """A dispatcher of a queue of its own, closed at the end of the case."""

    @abstractmethod
    def ids_in(self, dispatcher: Any) -> set[str]:
        """The ids of all messages that the broker has."""

    def test_redis_killed_in_mid_burst_loses_nothing(self, private_redis: RedisServer) -> None:
        """C9: with an append-only file nothing that was ACCEPTED is lost by `kill -9` of Redis."""
        private_redis.stop()
        private_redis.keeps = "always"
        private_redis.start()

        accepted, lost = self.killed_in_mid_burst(
            private_redis, self.dispatcher_of(private_redis.url)
        )

        print(f"{accepted} accepted, {lost} lost")
        assert lost == 0

    @pytest.mark.slow
    def test_rabbitmq_killed_in_mid_burst_loses_nothing(
        self, private_rabbitmq: RabbitMQServer
    ) -> None:
        """C9: nothing that was ACCEPTED is lost by `kill -9` of RabbitMQ."""
        accepted, lost = self.killed_in_mid_burst(
            private_rabbitmq, self.dispatcher_of(private_rabbitmq.url)
        )

        print(f"{accepted} accepted, {lost} lost")
        assert lost == 0

    @pytest.mark.slow
    def test_a_restart_between_two_calls_costs_no_dispatch(
        self, private_rabbitmq: RabbitMQServer
    ) -> None:
        """A connection that the broker has closed is noticed before anything is sent over it."""
        dispatcher = self.dispatcher_of(private_rabbitmq.url)
        work = tasks.note.options(dispatcher=dispatcher)
        first = work.dispatch("/nowhere")

        private_rabbitmq.kill()
        private_rabbitmq.start()
        second = work.dispatch("/nowhere")

        assert first.ok
        assert second.ok

    def test_redis_restarted_between_two_calls_costs_no_dispatch(
        self, private_redis: RedisServer
    ) -> None:
        """The same on Redis."""
        work = tasks.note.options(dispatcher=self.dispatcher_of(private_redis.url))
        first = work.dispatch("/nowhere")

        private_redis.kill()
        private_redis.start()
        second = work.dispatch("/nowhere")

        assert first.ok
        assert second.ok

    @pytest.mark.slow
    def test_a_memory_alarm_is_answered_in_time_and_unknown(
        self, private_rabbitmq: RabbitMQServer
    ) -> None:
        """C3: a blocked RabbitMQ may take the message later: UNKNOWN, within the deadline."""
        work = tasks.note.options(dispatcher=self.dispatcher_of(private_rabbitmq.url))
        assert work.dispatch("/nowhere").ok
        private_rabbitmq.alarm()

        response = answered(1.0, lambda: work.dispatch("/nowhere"))
        private_rabbitmq.end_alarm()
        healed = [work.dispatch("/nowhere") for _ in range(3)]

        assert response.status is DispatchStatus.UNKNOWN
        assert response.error is not None
        assert response.error.category is ErrorCategory.TIMEOUT
        assert healed[-1].ok

    def test_a_full_redis_is_a_rejection(self, private_redis: RedisServer) -> None:
        """C3: Redis that refuses for want of memory has certainly not got it."""
        work = tasks.note.options(dispatcher=self.dispatcher_of(private_redis.url))
        assert work.dispatch("/nowhere").ok
        client = redis.Redis(port=private_redis.port)
        client.config_set("maxmemory", "1")

        response = work.dispatch("/nowhere")
        client.close()

        assert response.status is DispatchStatus.REJECTED
        assert response.error is not None
        assert response.error.category is ErrorCategory.CAPACITY

    def killed_in_mid_burst(
        self, server: PrivateServer, dispatcher: BaseDispatcher
    ) -> tuple[int, int]:
        """Dispatch while the server is killed and started again; the accepted, and the lost."""
        accepted: list[str] = []
        stop = threading.Event()

        def burst() -> None:
            while not stop.is_set():
                response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
                if response.status is DispatchStatus.ACCEPTED:
                    accepted.append(response.request_id)

        threads = [threading.Thread(target=burst) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(accepted) > 10)
            server.kill()
            before = len(accepted)
            server.start()
            eventually(lambda: len(accepted) > before + 10, timeout=60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        return len(accepted), len(set(accepted) - self.ids_in(dispatcher))
